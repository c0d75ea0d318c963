"""What a library's error means, for a message of ours."""


def cause(error: BaseException) -> str:
    """Describe an error of a library by its innermost cause, in one short line.

    Returns
    -------
    str
        At most 200 characters.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
