"""Every error a caller can cause. The page and the command line show the message as it is.

    RazorError
    |-- InputError              a bad argument, target, file or table
    |   |-- ExampleError        pictures, captions or sets that cannot be used
    |   `-- PatchError          a patch file that is broken or does not fit
    |       `-- OtherWeightsError   it would fit, but was made for other weights
    |-- ModelError              a model that cannot be found, read or split into units
    |-- UnusableGradientError   NaN or infinite gradients
    `-- Stopped                 a person ended the work before it was done

Each message says what was wrong, what was expected and how to go on.
"""


class RazorError(Exception):
    """Base of all errors below; its text is one clear sentence for the person at the page."""


class InputError(RazorError):
    """An argument outside its range, an unknown name, a file that is not what it should be."""


class ExampleError(InputError):
    """Pictures, captions or example sets that cannot be used."""


class PatchError(InputError):
    """A patch that cannot be read, or that was made for another model."""


class OtherWeightsError(PatchError):
    """A patch that fits by names and shapes, and was made for other weights; a person may want it all the same."""


class ModelError(RazorError):
    """A model that is missing, unsafe to load, or has no attention heads to edit."""


class UnusableGradientError(RazorError):
    """A loss or gradient holds NaN or infinity."""


class Stopped(RazorError):
    """Work that a person ended before it had a result."""
