"""The self-check of the starter notebooks, a cell of each of them once the book is built: book/_ext/phaselab_book.py."""


def check(answer, *demands, why):
    """Say whether an answer is right, and why, or what it lacks; a demand: what must hold, and what to say if not."""
    gaps = [part is ... for part in (answer.values() if isinstance(answer, dict) else [answer])]
    for holds, lacks in ((lambda _: not any(gaps), "the gap above is still empty."), *demands):
        try:
            met = holds(answer)
        except Exception as error:  # of whatever kind, by what stands in the gap
            met, lacks = False, f"{lacks} Checking it gave {type(error).__name__}: {error}."
        if not met:
            print(f"Not yet: {lacks}")
            return
    print(f"Right. {why}")
