"""The two ways in which a user's input can be wrong. Anything else that is raised is our mistake."""


class InputError(ValueError):
    """Found before any long work: a path, an option, a config field, a header. It says where and what to do."""


class WeightError(ValueError):
    """Found only while reading weights (NaN, infinity, a file that changed underfoot). It fails one job only."""
