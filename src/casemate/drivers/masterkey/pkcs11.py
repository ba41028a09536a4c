"""A master key that never leaves a PKCS#11 token: AES Key Wrap (RFC 3394, CKM_AES_KEY_WRAP).

Rules
1. Every PKCS#11 call of the process is made on one thread: the binding initialises libraries without locking, and calls
   from several threads crash it.
2. The key is found by its CKA_ID alone, exactly one of class secret key and type AES; one that could be read out is
   refused.
3. One session a token: a login or a logout holds for all of a process's sessions, so keys of one token share theirs.
4. A session that broke is opened anew once; a token that still fails is `Unavailable`, never a wrong key.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import Any, TypeVar

from casemate.drivers import keyfiles, masterkey
from casemate.errors import CasemateError, Malformed, Unavailable, Unusable

T = TypeVar("T")
_WRAPPED = masterkey.DATA_KEY + 8
_guard = threading.Lock()
_threads: dict[int, ThreadPoolExecutor] = {}
_tokens: dict[tuple[int, Path, str], _Token] = {}


def _thread() -> ThreadPoolExecutor:
    """The one thread of this process; a forked child gets its own."""
    with _guard:
        return _threads.setdefault(os.getpid(), ThreadPoolExecutor(1, "pkcs11"))


class TokenKey:
    """Wrapped: 40 bytes."""

    kind, slow = "pkcs11", False

    def __init__(self, module: Path, token: str, key_id: bytes, *, pin_file: Path, seconds: float = 10.0) -> None:
        self._key_id, self._seconds = key_id, seconds
        self.ident = masterkey.ident(self.kind, token.encode(), key_id)
        self._token: _Token | None = None
        self._on_thread(lambda: self._attach(module, token, pin_file))

    def wrap(self, key: bytes) -> bytes:
        """A data key, wrapped."""
        return self._on_thread(lambda: self._use().wrap(self._key_id, masterkey.demand_key(key)))

    def unwrap(self, wrapped: bytes) -> bytes:
        """The data key; `Malformed` when another key wrapped it or it was changed."""
        if len(wrapped) != _WRAPPED:
            raise Malformed("wrapped key: another length than a token makes")
        return self._on_thread(lambda: self._use().unwrap(self._key_id, wrapped))

    def close(self) -> None:
        """Log out when no other key of the token is in use."""
        try:
            self._on_thread(self._detach)
        except CasemateError:
            return  # the token is gone already

    def _on_thread(self, call: Callable[[], T]) -> T:
        waiting: Future[T] = _thread().submit(call)
        try:
            return waiting.result(self._seconds)
        except Late:
            waiting.cancel()
            raise Unavailable(f"the token did not answer within {self._seconds:g} seconds") from None

    def _use(self) -> _Token:
        if self._token is None:
            raise Unavailable("the master key was closed")
        return self._token

    def _attach(self, module: Path, label: str, pin_file: Path) -> None:
        token = _tokens.setdefault((os.getpid(), module, label), _Token(module, label, pin_file))
        try:
            token.key(self._key_id)
        except BaseException:
            token.release()
            raise
        token.users += 1
        self._token = token

    def _detach(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            token.users -= 1
            token.release()


class _Token:
    """A token's one session. Only for the thread of all PKCS#11 calls."""

    def __init__(self, module: Path, label: str, pin_file: Path) -> None:
        self._module, self._label, self._pin_file = module, label, pin_file
        self._session: Any = None
        self._keys: dict[bytes, Any] = {}
        self.users = 0

    def wrap(self, key_id: bytes, key: bytes) -> bytes:
        return self._retried(lambda: self._wrapped(key_id, key))

    def unwrap(self, key_id: bytes, wrapped: bytes) -> bytes:
        import pkcs11

        try:
            return self._opened(key_id, wrapped)
        except pkcs11.PKCS11Error:
            # A changed value and a broken token say the same (CKR_GENERAL_ERROR): see which it is.
            probe = os.urandom(masterkey.DATA_KEY)
            if self._retried(lambda: self._opened(key_id, self._wrapped(key_id, probe))) != probe:
                raise Unavailable("the token does not open what it wrapped") from None
        try:
            return self._opened(key_id, wrapped)
        except pkcs11.PKCS11Error:
            raise Malformed("wrapped key: it was changed, or another key wrapped it") from None

    def key(self, key_id: bytes) -> Any:
        """The key, looked up once a session."""
        if self._session is None:
            self._open()
        if key_id not in self._keys:
            self._keys[key_id] = self._found(key_id)
        return self._keys[key_id]

    def release(self) -> None:
        """Log out, and forget the token, when nobody uses it any more."""
        if self.users == 0:
            self._hang_up()
            _tokens.pop((os.getpid(), self._module, self._label), None)

    def _retried(self, call: Callable[[], T]) -> T:
        import pkcs11

        try:
            return call()
        except pkcs11.PKCS11Error:
            self._hang_up()
        try:
            return call()
        except pkcs11.PKCS11Error as error:
            raise _failed(error) from None

    def _wrapped(self, key_id: bytes, key: bytes) -> bytes:
        import pkcs11

        master = self.key(key_id)
        kind = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
            pkcs11.Attribute.VALUE: key,
        }
        carrier = self._session.create_object({**kind, **_passing()})
        try:
            return bytes(master.wrap_key(carrier, mechanism=pkcs11.Mechanism.AES_KEY_WRAP))
        finally:
            carrier.destroy()

    def _opened(self, key_id: bytes, wrapped: bytes) -> bytes:
        import pkcs11

        carrier = self.key(key_id).unwrap_key(
            pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.KeyType.AES,
            wrapped,
            mechanism=pkcs11.Mechanism.AES_KEY_WRAP,
            template=_passing(),
        )
        try:
            return masterkey.demand_key(bytes(carrier[pkcs11.Attribute.VALUE]))
        finally:
            carrier.destroy()

    def _open(self) -> None:
        try:
            import pkcs11
        except ImportError as error:
            raise Unusable("a master key in a token needs python-pkcs11", hint="install casemate[pkcs11]") from error
        if not self._module.is_file():
            raise Unusable(f"masters: there is no PKCS#11 module {self._module}")
        pin = keyfiles.read(self._pin_file).decode("utf-8", "replace").strip("\r\n")
        try:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self._label)
            self._session = token.open(user_pin=pin)
        except pkcs11.PKCS11Error as error:
            raise _failed(error) from None
        except RuntimeError as error:  # how the binding says that it cannot load the module
            raise Unusable(f"masters: {self._module} is not a PKCS#11 module that works") from error

    def _found(self, key_id: bytes) -> Any:
        import pkcs11

        wanted = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
            pkcs11.Attribute.ID: key_id,
        }
        found = list(self._session.get_objects(wanted))
        if len(found) != 1:
            raise Unusable(
                f"the token {self._label!r} has {len(found)} AES keys with id {key_id.hex()}, one is wanted",
                hint="docs/how-to/secrets.md tells how to make it",
            )
        if found[0][pkcs11.Attribute.EXTRACTABLE] or not found[0][pkcs11.Attribute.SENSITIVE]:
            raise Unusable("the token's key can be read out", hint="make one that is sensitive and not extractable")
        return found[0]

    def _hang_up(self) -> None:
        session, self._session = self._session, None
        self._keys.clear()
        if session is not None:
            import pkcs11

            with contextlib.suppress(pkcs11.PKCS11Error):  # the token may have closed it
                session.close()


def _passing() -> dict[Any, Any]:
    """What a data key is while it passes through the token: never kept there, and readable by us."""
    import pkcs11

    return {
        pkcs11.Attribute.TOKEN: False,
        pkcs11.Attribute.EXTRACTABLE: True,
        pkcs11.Attribute.SENSITIVE: False,
    }


def _failed(error: Exception) -> CasemateError:
    name = type(error).__name__
    if name in ("PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked", "NoSuchToken", "MultipleTokensReturned"):
        return Unusable(f"the token can't be used ({name})", hint="see `masters` in broker.toml and the PIN's file")
    return Unavailable(f"the token failed ({name})")
