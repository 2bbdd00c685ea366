"""Which spellings of a question are the same words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data.boilerplate import without_boilerplate, without_format
from relay_verl.data.question_words import normalize, words_of

SAME = [
    ("$xy + z$", "$x y+z$", "letters of a formula"),
    ("$xy$", r"\(x y\)", "other delimiters"),
    ("$$xy$$", r"\[x{y}\]", "a displayed formula"),
    ("$xy$", r"\begin{align*} x y \end{align*}", "a formula's environment"),
    ("$x$$yz$", "$x$ $y z$", "formulas without a blank between"),
    (r"$\text{if }xy$", r"if $x y$", "text in a formula"),
    (r"$\text{if $xy$ then}$", "if $x y$ then", "a formula in text in a formula"),
    (r"$\triangle\mathrm{ABC}$", r"$\triangle A B C$", "upright letters"),
    (r"$5\mathrm{~cm}$", "5 cm", "an upright unit"),
    (r"$\sin x$", "$sin x$", "the name of a function"),
    (r"$\operatorname{lcm}(a,b)$", r"$lcm(a,b)$", "the name of an operator"),
    (r"$1+\cdots+n$", r"$1+\ldots+n$", "dots"),
    (r"$1+\dots+n$", "$1+...+n$", "dots as full stops"),
    (r"$x \leqslant 1$", r"$x \le 1$", "at most"),
    (r"$x \leq 1$", "$x<=1$", "at most in ASCII"),
    (r"$x \geqslant 1$", "$x≥1$", "at least"),
    (r"$f: A \to B$", r"$f: A \rightarrow B$", "an arrow"),
    (r"$A \implies B$", r"$A \Rightarrow B$", "a consequence"),
    (r"$x \not= y$", r"$x \neq y$", "not equal"),
    (r"$x \not\in A$", r"$x \notin A$", "not in"),
    (r"$x \ne y$", "$x ≠ y$", "not equal in Unicode"),
    ("non-negative", "nonnegative", "a hyphen"),
    ("non negative", "nonnegative", "a blank for a hyphen"),
    ("a 10-digit number", "a $10$-digit number", "a hyphen behind a number"),
    ("a right-angled triangle", "a right angled triangle", "a hyphen between words"),
    ("the $x$-axis", "the $x$ axis", "a hyphen behind a formula"),
    (r"$\dfrac{1}{2}$", r"$\tfrac 12$", "fractions"),
    (r"$\frac{1}{2}$", "$1/2$", "a fraction on a line"),
    (r"$\frac{\sqrt{2}}{x}$", "$√2/x$", "a fraction of a root"),
    ("in the form \x0crac{m}{n}", r"in the form \frac{m}{n}", "a form feed for a command, as in DAPO-Math-17k"),
    (r"$\left( x \right)$", "$(x)$", "sizes"),
    (r"$\bigl|x\bigr|$", r"$\lvert x \rvert$", "bars"),
    (r"$x\,\!=\;1\quad y$", "$x=1 y$", "spacing"),
    (r"\$5 and 5\%", "$5 and 5%", "escaped signs"),
    ("5 percent", "5%", "percent"),
    (r"$30^\circ$", "30 degrees", "degrees"),
    (r"$30^{\circ}$", "30°", "a degree sign"),
    ("$f'(x)$", r"$f^{\prime}(x)$", "a derivative"),
    ("1,000,000", r"$1{,}000{,}000$", "thousands"),
    (r"$10\,000$", "10000", "thousands behind a thin space"),
    ("$.5$", "$0.5$", "a decimal without a zero"),
    (r"$3 \cdot 4$", r"$3 \times 4$", "products"),
    ("$3·4$", "$3*4$", "a middle dot"),
    (r"$\varepsilon$", "$ϵ$", "Greek letters"),
    ("“Let’s”", '"Let\'s"', "quotes"),
    ("three apples", "3 apples", "a numeral in letters"),
    ("**Find** it", "Find it", "emphasis"),
    ("x²", "$x^2$", "an exponent in Unicode"),
    ("from 5—say—to 6", "from 5 -- say -- to 6", "dashes"),
]


@pytest.mark.parametrize(("one", "other", "why"), SAME, ids=[case[2] for case in SAME])
def test_the_same_words(one: str, other: str, why: str) -> None:
    assert words_of(one) == words_of(other) != []


OTHER = [
    ("the cat", "the c a t", "a word outside formulas"),
    ("It sells for $2 per egg and $3 per duck", "It sells for $2 p e r egg and $3 per duck", "text between two prices"),
    ("Pay $5 or $6 for it", "Pay $5 o r $6 for it", "a word between two prices"),
    ("$x-y$", "$x+y$", "operators"),
    ("$x/y$", "$xy$", "a bar"),
    ("$2^{10}$", "$2_{10}$", "a power and an index"),
    ("$1.5$", "$15$", "a decimal"),
    ("$10$", "$1, 0$", "two numbers"),
    (r"$\sin x$", r"$\cos x$", "functions"),
]


@pytest.mark.parametrize(("one", "other", "why"), OTHER, ids=[case[2] for case in OTHER])
def test_other_words(one: str, other: str, why: str) -> None:
    assert words_of(one) != words_of(other)


def test_prices_do_not_swallow_the_formulas_behind_them() -> None:
    assert words_of("It costs $5 each, so $xy$ eggs") == ["it", "costs", "5", "each", "so", "x", "y", "eggs"]


PIECES = [
    "$",
    "$$",
    "{",
    "}",
    "\\",
    "\\text",
    "\\frac",
    "\\not",
    "\\mathrm",
    "\\(",
    "\\]",
    "\\begin{cases}",
    "\\end{cases}",
]
PIECES += [
    " ",
    "-",
    "^",
    "\\circ",
    "\\prime",
    "non",
    "cm",
    "xy",
    "12",
    "1,000",
    ".5",
    ",",
    "=",
    "∈",
    "²",
    "\u0338",
    "two",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_normalizing_twice_changes_nothing(question: str) -> None:
    assert normalize(normalize(question)) == normalize(question)


LETTERS = st.lists(st.sampled_from("abxyz"), min_size=1, max_size=6)


@given(LETTERS, st.lists(st.booleans(), min_size=6, max_size=6))
def test_blanks_between_the_letters_of_a_formula_change_nothing(letters: list[str], has_blank: list[bool]) -> None:
    spaced = "".join(letter + " " * blank for letter, blank in zip(letters, has_blank, strict=False))
    assert words_of(f"Find ${spaced}$") == ["find", *letters]


FORMS = [
    "Express your answer as a common fraction.",
    "Give your answer in simplest radical form.",
    "Round your answer to the nearest tenth.",
    "Enter your answer as a decimal rounded to two decimal places.",
    "Please provide your answer as an integer.",
]
REQUESTS = [
    "where $m$ and $n$ are relatively prime positive integers. Find $m+n$.",
    "for positive integers $p$ and $q$ that are coprime. What is $p+q$?".replace("that are ", ""),
    r"The answer is in the form \frac{m}{n}, where gcd(m, n) = 1. Please provide the value of m + n.",
    r"The original answer is in \(\frac{k}{m}\) format, please give the value of k + m.",
    "原始的答案是\\frac{m}{n}的形式，其中m、n是互质的。请给出最终m + n的值",
    "Compute $100m + n$.",
]


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_an_answer_is_boilerplate(form: str) -> None:
    words = words_of(f"Which animal is it? {form}")
    assert without_format(words) == without_boilerplate(words) == ["which", "animal", "is", "it"]


@pytest.mark.parametrize("request_", REQUESTS)
def test_what_is_asked_for_in_place_of_the_answer_is_boilerplate(request_: str) -> None:
    words = words_of(f"Which animal is it? {request_}")
    assert without_boilerplate(words) == ["which", "animal", "is", "it"]
    assert without_format(words) == words


@given(st.lists(st.sampled_from(words_of(" ".join([*FORMS, *REQUESTS, "cat 7 + x"]))), max_size=30))
def test_stripping_boilerplate_twice_is_stripping_it_once(words: list[str]) -> None:
    for strip in (without_format, without_boilerplate):
        assert strip(strip(words)) == strip(words)
