"""Settings from environment variables: proxies, certificates, Keras.

    proxy_for("https://example.com/set.npz", socks="socksio")   # "http://proxy:3128", or None
    certificates()                                              # the file of SSL_CERT_FILE, or None

Each HTTP library reads these variables in its own way, and all of them send requests for 127.0.0.1 to the
proxy. So modelyard's clients ignore the variables and use these functions.
"""

import json
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from modelyard.components.errors import ConfigError

if TYPE_CHECKING:
    import ssl

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR")
KERAS_BACKENDS = ("tensorflow", "jax")
KERAS_DEFAULTS = {
    "backend": "tensorflow",
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
}
KERAS_VALUES = {
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}
PORTS = {"http": 80, "https": 443}


def is_loopback(url: str) -> bool:
    """Return whether a URL refers to this machine."""
    from ipaddress import ip_address

    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # malformed, which those who open it say
        return False
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(url: str, socks: str | None = None) -> str | None:
    """Return the URL of the proxy for a URL; None when it is reached directly.

    Args:
        url: the URL.
        socks: the module with which the HTTP library speaks SOCKS. None: it cannot, and ALL_PROXY is ignored
            if it names such a proxy.

    Raises:
        ConfigError: the proxy is malformed, or the library does not support it.
    """
    from urllib.request import getproxies  # the servers of models import this module and need none of it

    proxies, scheme = getproxies(), urlsplit(url).scheme
    key = scheme if proxies.get(scheme) else "all"
    proxy = proxies.get(key)
    if not proxy or is_loopback(url) or _excepted(url, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        shown, kind = f"{parts.scheme}://{parts.hostname}", parts.scheme.removesuffix("h")
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        shown, kind, usable = "malformed", "", False
    origin = f"{key.upper()}_PROXY is {shown}"  # which may have a password
    remedy = f"Correct it, or add {urlsplit(url).hostname} to NO_PROXY."
    if usable and kind in PORTS:
        return proxy
    if not usable or kind != "socks5":
        raise ConfigError(f"{origin}, which is not the URL of an HTTP or SOCKS5 proxy. {remedy}")
    if socks and find_spec(socks):
        return proxy
    if socks:
        package = {"socks": "PySocks"}.get(socks, socks)
        raise ConfigError(
            f"{origin}, and the package {package}, which SOCKS needs, is not installed. Install it with `pip "
            f"install {package}`, name an HTTP proxy, or add {urlsplit(url).hostname} to NO_PROXY."
        )
    if key == "all":
        return None
    raise ConfigError(f"{origin}, and {urlsplit(url).hostname} can be reached by HTTP proxies only. {remedy}")


def certificates() -> str | None:
    """Return the file or folder of the certificate authorities to trust; None for the usual ones.

    Raises:
        ConfigError: it does not exist, or has no certificate.
    """
    name = next((name for name in CERTIFICATES if os.environ.get(name)), None)
    if name is None:
        return None
    path = os.environ[name]
    try:
        tls_context(path)
    except OSError as error:  # also ssl.SSLError
        reason = "it holds no certificate" if type(error).__name__ == "SSLError" else error.strerror
        raise ConfigError(
            f"{name} is {path}, which cannot be used for https://: {reason}. Correct it, or unset it to "
            "trust the usual certificate authorities."
        ) from error
    return path


def tls_context(authorities: str) -> "ssl.SSLContext":
    """Return a context for clients that trusts the certificate authorities of a file or folder."""
    import ssl

    if Path(authorities).is_dir():
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)


def keras_config(environ: Mapping[str, str] = os.environ) -> tuple[Path, dict[str, object]]:
    """Return the path of keras.json and what it holds.

    Raises:
        ConfigError: Keras would refuse it.
    """
    path = Path(environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")) / "keras.json"  # noqa: PTH111
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # which Keras ignores, too
        return path, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object, so Keras cannot be imported. Remove the file.")
    for key, value in values.items():
        if not (isinstance(value, float) if key == "epsilon" else value in KERAS_VALUES.get(key, (value,))):
            raise ConfigError(
                f"{path}: {key} is {value!r}, with which Keras cannot be imported. Correct it, or remove the "
                "file."
            )
    return path, values


def check_keras(environ: Mapping[str, str] = os.environ) -> None:
    """Check what Keras reads when it is imported, before a run comes to that.

    Raises:
        ConfigError: it names a backend that cannot train here, or Keras would refuse it.
    """
    backend = environ.get("KERAS_BACKEND") or KERAS_BACKENDS[0]
    if backend not in KERAS_BACKENDS:
        raise ConfigError(
            f"KERAS_BACKEND is {backend}, and modelyard trains with tensorflow or jax. Unset it, or set it "
            "to one of them."
        )
    if not find_spec(backend):
        raise ConfigError(
            f"KERAS_BACKEND is {backend}, which is not installed. Install it with `pip install {backend}`, "
            "or unset KERAS_BACKEND to train with tensorflow."
        )
    keras_config(environ)


def _excepted(url: str, listed: str) -> bool:
    """Say whether NO_PROXY lists the host of a URL, in any form that curl, Python or Go understand.

    A Service of a cluster is never reached through a proxy.
    """
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme)
    for entry in re.split(r"[\s,]+", f".svc.cluster.local {listed.lower()}".strip()):
        name, given = _without_port(entry.rpartition("://")[2])
        if given not in (None, port):
            continue
        if name == "*" or _in_network(host, name):
            return True
        name = name.removeprefix("*").strip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _without_port(entry: str) -> tuple[str, int | None]:
    """Return an entry of NO_PROXY without brackets and port, and the port: [::1]:80, host:80, 10.0.0.0/8."""
    found = re.fullmatch(r"\[(?P<six>.*)\](?::(?P<a>\d+))?|(?P<name>[^:]*):(?P<b>\d+)", entry)
    if not found:
        return entry, None
    port = found["a"] or found["b"]
    return found["six"] or found["name"] or "", int(port) if port else None


def _in_network(host: str, name: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        return False
