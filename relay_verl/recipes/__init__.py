"""The recipes as a catalog: what each is, what it is about, what it needs."""
