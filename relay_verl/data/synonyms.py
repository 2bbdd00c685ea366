r"""The tables of `relay_verl.data.question_words`: which spellings of LaTeX and Unicode say the same. Pure.

Each line of a table starts with the word that a question is compared by; its other spellings follow. Names of commands
are in lower case, so that `\Rightarrow` is `\rightarrow`.
"""

from __future__ import annotations

import unicodedata

DROPPED = "dropped"
"""What stands in a table for spellings that say nothing."""


def _read_table(table: str) -> dict[str, str]:
    return {
        spelling: word for line in table.split("\n") if line for word, *others in [line.split()] for spelling in others
    }


COMMANDS = {
    **{unicodedata.name(letter).rpartition(" ")[2].lower(): letter for letter in "αβγδεζηθικμνξοπρστυφχψω"},
    **_read_table(r"""
λ lambda
ε varepsilon
φ varphi
θ vartheta
ρ varrho
l ell
≤ le leq leqslant leqq
≥ ge geq geqslant geqq
≠ ne neq
→ to rightarrow longrightarrow mapsto longmapsto implies
← gets leftarrow longleftarrow
↔ iff leftrightarrow longleftrightarrow
| mid vert lvert rvert divides
∤ nmid
* times cdot ast
÷ div
± pm
∓ mp
√ sqrt surd
∘ circ
° degree
∞ infty
∅ emptyset varnothing
∈ in
∉ notin
⊂ subset
⊆ subseteq
∪ cup
∩ cap
∖ setminus
∀ forall
∃ exists
∧ wedge land
∨ vee lor
⊕ oplus
∇ nabla
∂ partial
∑ sum
∏ prod
∫ int
≡ equiv
≈ approx
∼ sim
≅ cong
⊥ perp
∥ parallel
⌊ lfloor
⌋ rfloor
⌈ lceil
⌉ rceil
mod bmod pmod
binom dbinom tbinom
overline bar
hat widehat
tilde widetilde
vec overrightarrow
dropped left right middle big bigg bigl bigr biggl biggr limits nolimits displaylimits
dropped displaystyle textstyle scriptstyle rm bf it cal boldsymbol bm boxed underline emph
dropped mathbf mathit mathsf mathtt mathcal mathbb mathfrak mathscr
dropped quad qquad hfill newline linebreak noindent par centering phantom mathstrut hline item tag notag nonumber
dropped langle rangle lbrace rbrace lbrack rbrack prime
dropped cdots ldots dots dotsc dotsb dotsm dotsi dotso hdots vdots ddots
"""),
}
"""The word for a command; any other command is its name."""

SIGNS = _read_table("""
* × · ⋅ ∗ ∙
≤ <= ≦ ⩽
≥ >= ≧ ⩾
| ∣
/ ∕
→ ⇒ ⟶ ⟹ ⟼ ↦
↔ ⇔ ⟷ ⟺
← ⇐ ⟵
angle ∠
dropped ⋯ ⋮ ⋱ ⋰
""")
"""The word for a sign; any other sign is itself."""

WORDS = _read_table("""
% percent percentage
° degree degrees
2 two
3 three
4 four
5 five
6 six
7 seven
8 eight
9 nine
10 ten
11 eleven
12 twelve
""")
"""The word for a word outside formulas; any other word is itself."""

MODES = _read_table("""
text text textrm textnormal mbox hbox operatorname textbf textit texttt textsc textsf
roman mathrm
""")
"""How the letters in a command's argument are read."""

_NAMES = _read_table("""
function sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp gcd lcm max min mod det dim deg
function arg lim sup inf
unit mm cm dm km kg mg ml min hr sec ft yd mi lb oz kw hz khz mhz ev kev mev mol pa kpa
condition ii iii
fraction frac dfrac tfrac cfrac
prefix non co semi sub pre multi anti equi
formula equation align aligned alignat gather gathered multline split eqnarray displaymath math
formula cases array matrix pmatrix bmatrix vmatrix
""")


def _names_of(kind: str) -> frozenset[str]:
    return frozenset(name for name, its_kind in _NAMES.items() if its_kind == kind)


FUNCTIONS = _names_of("function") | {"min"}
"""Names that stay words inside a formula."""
CONDITIONS = _names_of("condition")
"""Roman numerals that number conditions, and stay words, too."""
UNITS = _names_of("unit")
"""Names that stay words in `\\mathrm{...}`."""
FRACTIONS = _names_of("fraction")
"""Commands of two arguments with a bar between."""
PREFIXES = _names_of("prefix")
"""What is one word with the word behind it."""
FORMULA_ENVIRONMENTS = _names_of("formula")
"""Environments whose text is a formula."""
