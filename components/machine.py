"""Proxies, certificates and Keras' settings, from environment variables and keras.json.

HTTP libraries interpret the variables differently, and some send requests for 127.0.0.1 to the proxy. So
modelyard configures its HTTP clients to ignore the variables, and passes them the results of these functions.
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
    """Return whether the host of a URL is this machine."""
    from ipaddress import ip_address

    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # malformed; opening it raises an error
        return False
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def find_proxy(url: str, socks: str | None = None) -> str | None:
    """Return the URL of the proxy for a URL; None for a direct connection.

    Args:
        url: the URL.
        socks: the module that adds SOCKS to the HTTP library. None: the library does not support SOCKS, and a
            SOCKS proxy in ALL_PROXY is ignored.

    Raises:
        ConfigError: the proxy is malformed, or the library does not support it.
    """
    from urllib.request import getproxies  # model servers import this module, but do not need it

    proxies, scheme = getproxies(), urlsplit(url).scheme
    key = scheme if proxies.get(scheme) else "all"
    proxy = proxies.get(key)
    if not proxy or is_loopback(url) or _in_no_proxy(url, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    kind, display_proxy = _parse_proxy(proxy)
    if kind in PORTS:
        return proxy
    host, origin = urlsplit(url).hostname, f"{key.upper()}_PROXY is {display_proxy}"
    remedy = f"Correct it, or add {host} to NO_PROXY."
    if kind != "socks5":
        raise ConfigError(f"{origin}, which is not the URL of an HTTP or SOCKS5 proxy. {remedy}")
    if not socks:
        if key == "all":
            return None
        raise ConfigError(f"{origin}, but requests to {host} support HTTP proxies only. {remedy}")
    if not find_spec(socks):
        package = {"socks": "PySocks"}.get(socks, socks)
        raise ConfigError(
            f"{origin}, and the package {package} for SOCKS is not installed. Run `pip install {package}`, "
            f"use an HTTP proxy, or add {host} to NO_PROXY."
        )
    return proxy


def _parse_proxy(url: str) -> tuple[str, str]:
    """Return the scheme of a proxy (`socks5` for `socks5h`), and its URL for messages, without a password.

    The scheme is empty if the URL is malformed.
    """
    try:
        parts = urlsplit(url)
        if parts.hostname and (parts.port is None or parts.port > 0):
            return parts.scheme.removesuffix("h"), f"{parts.scheme}://{parts.hostname}"
    except ValueError:
        pass
    return "", "a malformed URL"


def find_certificates() -> str | None:
    """Return the file or folder of the trusted certificate authorities; None for the default ones.

    Raises:
        ConfigError: the file or folder does not exist, or has no certificates.
    """
    name = next((name for name in CERTIFICATES if os.environ.get(name)), None)
    if name is None:
        return None
    path = os.environ[name]
    try:
        create_tls_context(path)
    except OSError as error:  # also ssl.SSLError
        reason = "it has no certificates" if type(error).__name__ == "SSLError" else error.strerror
        raise ConfigError(
            f"{name} is {path}, which cannot be used for https://: {reason}. Correct it, or unset it to "
            "trust the default certificate authorities."
        ) from error
    return path


def create_tls_context(authorities: str) -> "ssl.SSLContext":
    """Return a client context that trusts the certificate authorities in a file or folder."""
    import ssl

    if Path(authorities).is_dir():
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)


def read_keras_config(environ: Mapping[str, str] = os.environ) -> tuple[Path, dict[str, object]]:
    """Return the path of keras.json and its values.

    Raises:
        ConfigError: Keras does not accept the file.
    """
    path = Path(environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")) / "keras.json"  # noqa: PTH111
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Keras ignores them, too
        return path, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object, so Keras cannot be imported. Remove the file.")
    for key, value in values.items():
        valid = isinstance(value, float) if key == "epsilon" else value in KERAS_VALUES.get(key, (value,))
        if not valid:
            raise ConfigError(
                f"{path}: {key} is {value!r}, with which Keras cannot be imported. Correct it, or remove the "
                "file."
            )
    return path, values


def check_keras(environ: Mapping[str, str] = os.environ) -> None:
    """Check KERAS_BACKEND and keras.json, which Keras reads when it is imported.

    Raises:
        ConfigError: the backend is not supported or not installed, or Keras does not accept keras.json.
    """
    backend = environ.get("KERAS_BACKEND") or KERAS_BACKENDS[0]
    if backend not in KERAS_BACKENDS:
        raise ConfigError(
            f"KERAS_BACKEND is {backend}, but modelyard supports tensorflow and jax. Unset it, or set it to "
            "one of these."
        )
    if not find_spec(backend):
        raise ConfigError(
            f"KERAS_BACKEND is {backend}, which is not installed. Install it with `pip install {backend}`, "
            "or unset KERAS_BACKEND to train with tensorflow."
        )
    read_keras_config(environ)


def _in_no_proxy(url: str, no_proxy: str) -> bool:
    """Return whether NO_PROXY has the host of a URL, in any form that curl, Python or Go supports.

    Services of a cluster are always exempt from proxies.
    """
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme)
    for entry in re.split(r"[\s,]+", f".svc.cluster.local {no_proxy.lower()}".strip()):
        name, entry_port = _split_port(entry.rpartition("://")[2])
        if entry_port not in (None, port):
            continue
        if name == "*" or _in_network(host, name):
            return True
        name = name.removeprefix("*").strip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _split_port(entry: str) -> tuple[str, int | None]:
    """Return host and port of an entry of NO_PROXY, such as [::1]:80, host:80 or 10.0.0.0/8."""
    match = re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d+))?", entry)
    if not match:  # an IPv6 address without brackets
        return entry, None
    host, port = match.groups()
    return host.removeprefix("[").removesuffix("]"), int(port) if port else None


def _in_network(host: str, name: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        return False
