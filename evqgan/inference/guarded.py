"""What cannot be done with a loaded model: set what it does not have, and pickle it."""

from typing import Any, Never, Self

from evqgan.core.errors import InputError

OF_LOAD = ("batch_size", "device", "dtype")  # what `evqgan.load` is given, and no call


class Guarded:
    """A class whose instances take no new attributes once `_is_loaded` is set."""

    _is_loaded = False

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; AttributeError, with advice, for one that is not there.

        It would change nothing, without a word.
        """
        if self._is_loaded and name not in self.__dict__ and not hasattr(type(self), name):
            way = f"load the model again, by evqgan.load(..., {name}={value!r})"
            if name not in OF_LOAD:
                way = "settings are given to a call, as in model.generate(8, temperature=0.9)"
            raise AttributeError(f"a loaded model has no {name!r} that can be set: {way}")
        super().__setattr__(name, value)

    def __copy__(self) -> Self:
        """Return a shallow copy, whose weights are the same arrays."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __reduce_ex__(self, protocol: Any) -> Never:
        """Raise InputError: programs and arrays on a device belong to this process."""
        raise InputError(
            "a loaded model cannot be pickled, nor copied by copy.deepcopy: call evqgan.load in "
            "each process that needs it"
        )
