import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelyard.components import errors
from modelyard.pipelines.maintenance import doctor
from tests.kubeconfig import use_cluster
from tests.run_folders import create_ended_run

DOCS = Path(__file__).parents[3] / "docs"
COMMANDS = ("run", "serve", "predict", "models", "rollback", "compile", "config", "report", "doctor")
HEAVY = "pydantic numpy yaml kfp httpx PIL onnxruntime tensorflow keras google sklearn uvicorn"


MODELYARD = (sys.executable, "-c", "from modelyard.pipelines.cli import main; main()")


def test_help_lists_the_commands_without_heavy_imports():
    script = (
        "import sys\nfrom modelyard.pipelines.cli import main\nsys.argv = ['modelyard', '--help']\n"
        "try:\n    main()\n"
        f"finally:\n    print('heavy:', [m for m in '{HEAVY}'.split() if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in out
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", out, re.M)
    assert "Exit codes: 0 success" in out


def test_help_names_arguments_without_types(modelyard):
    out = modelyard("predict", "--help").out
    assert out.startswith("Usage: modelyard predict [OPTIONS] NAME FILE...\n")
    assert "<" not in out


def test_version_is_printed(modelyard):
    assert re.fullmatch(r"modelyard \d+\.\d+\.\d+\n", modelyard("-V").out)


@pytest.mark.parametrize(
    ("name", "value", "options", "code"),
    [
        ("KERAS_BACKEND", "torch", [], 2),
        ("KUBECONFIG", "/missing", ["-e", "kind"], 9),
        ("HTTPS_PROXY", "socks5://127.0.0.1:1", ["-e", "kind"], 2),
    ],
)
def test_a_run_that_cannot_start_creates_no_files(
    modelyard, monkeypatch, tmp_path, name, value, options, code
):
    use_cluster(monkeypatch, tmp_path, "https://cluster.invalid")
    monkeypatch.setenv(name, value)
    result = modelyard("run", *options)
    assert result.code == code
    assert value.partition(":")[0] in result.err
    assert not (tmp_path / ".modelyard").exists()


# stdout and stderr of other programs


def test_exit_code_does_not_depend_on_stdout():
    """The exit code is that of the command; only output that is lost on a full disk is an error."""
    version, shell = (*MODELYARD, "-V"), 'exec "$@" >'
    commands = {
        "unread": (version, 0),
        "closed": (["sh", "-c", f"{shell}&- 2>&-", "-", *version], 0),
        "full": (["sh", "-c", f"{shell}/dev/full", "-", *version], 1),
        "ascii": ([*MODELYARD, "--help"], 0),
    }
    variables = {**os.environ, "PYTHONIOENCODING": "ascii"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": variables}
    processes = {name: subprocess.Popen(command, **pipe) for name, (command, _) in commands.items()}
    processes["unread"].stdout.close()
    processes["unread"].stdout = None
    for name, process in processes.items():
        out, err = process.communicate(timeout=120)
        assert process.returncode == commands[name][1], err
        assert "Traceback" not in err
        assert ("cannot be written" in err) == (name == "full")
        assert name != "ascii" or (out.isascii() and "rejects . 1 unexpected" in out)


# Errors and exit codes


@pytest.mark.parametrize(("arguments", "code"), [(["nope"], 2), (["models", "show", "missing"], 7)])
def test_an_error_sets_the_exit_code_without_a_traceback(arguments, code):
    result = subprocess.run([*MODELYARD, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert "error: " in result.stderr.lower()
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "kind", "code", "expected"),
    [
        (["nope"], "UsageError", 2, "nope"),
        (["models", "show"], "UsageError", 2, "NAME"),
        (["models", "promote", "tiny", "abc"], "UsageError", 2, "'abc'"),
        (["run", "missing.yaml"], "ConfigError", 2, "missing.yaml: there is no such file"),
        (["config", "show", "--set", "training.epochs=x"], "ConfigError", 2, 'training.epochs is "x"'),
        (["models", "list", "missing"], "NotFoundError", 7, "There is no model missing"),
        (["report", "missing"], "NotFoundError", 7, "no run missing"),
        (["models", "list", "--store", "ftp://x"], "ConfigError", 2, "ftp://x"),
        (["predict", "missing", "x.npy"], "NotFoundError", 7, "missing"),
        (["predict", "x", "y", "--url", "http://127.0.0.1:9"], "ServeError", 8, "http://127.0.0.1:9"),
    ],
)
def test_errors_are_json_with_output_json(modelyard, arguments, kind, code, expected):
    result = modelyard(*arguments, "--output", "json")
    error = json.loads(result.out)["error"]
    assert (result.code, error["kind"], error["exit_code"]) == (code, kind, code)
    assert expected in error["message"]
    assert modelyard(*arguments, "--output=json").out == result.out


def test_every_exit_code_is_documented():
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    kinds = errors.ModelyardError.__subclasses__() + errors.StoreError.__subclasses__()
    for kind in kinds:
        assert re.search(rf"\| {kind.exit_code} \| .*`{kind.__name__}`", text), kind


@pytest.fixture
def _bug(monkeypatch):
    def raise_key_error(*_):
        raise KeyError("boom")

    monkeypatch.setattr("modelyard.pipelines.api.open_store", raise_key_error)


@pytest.mark.usefixtures("_bug")
def test_the_traceback_of_a_bug_is_in_a_file(modelyard, tmp_path):
    result = modelyard("models", "list")
    (log,) = (tmp_path / ".modelyard" / "errors").iterdir()
    assert result.code == 1
    assert f"KeyError: boom. This is a bug in modelyard; the traceback is in {log}" in result.err
    assert "in raise_key_error" in log.read_text()
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("_bug")
def test_debug_prints_the_traceback_of_a_bug(modelyard, tmp_path):
    result = modelyard("--debug", "models", "list")
    assert result.code == 1
    assert "in raise_key_error" in result.err
    assert not (tmp_path / ".modelyard").exists()


@pytest.mark.usefixtures("_bug")
def test_a_bug_is_reported_without_a_writable_folder(modelyard, monkeypatch):
    monkeypatch.setenv("MODELYARD_HOME", "/proc/missing")
    result = modelyard("models", "list")
    assert (result.code, "`modelyard --debug" in result.err) == (1, True)


def test_debug_prints_the_traceback_of_an_error(modelyard):
    result = modelyard("--debug", "models", "list", "missing")
    assert (result.code, "Traceback" in result.err) == (7, True)


@pytest.mark.parametrize("output", ["text", "json"])
def test_ctrl_c_is_reported_as_json(modelyard, monkeypatch, output):
    def raise_keyboard_interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("modelyard.pipelines.api.open_store", raise_keyboard_interrupt)
    result = modelyard("models", "list", "--output", output)
    assert result.code == 130
    if output == "json":
        assert json.loads(result.out)["error"]["exit_code"] == 130


def test_ctrl_c_ends_with_130():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [*MODELYARD, "predict", "tiny", "x.npy", "--url", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
            connection.close()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


# Configuration, compilation, reports, doctor


def test_config_show_prints_the_effective_configuration(modelyard, monkeypatch):
    monkeypatch.setenv("MODELYARD_TRAINING__BATCH_SIZE", "8")
    arguments = ("config", "show", "--set", "training.epochs=3")
    for shown in (yaml.safe_load(modelyard(*arguments).out), modelyard.json(*arguments)):
        assert shown["training"]["epochs"] == 3
        assert shown["training"]["batch_size"] == 8
        assert shown["serving"]["port"] == 8501
    assert modelyard("config", "show", "--set", "environment.nonsense=1").code == 2


def test_config_init_creates_a_valid_file_and_overwrites_none(modelyard, tmp_path):
    assert modelyard("config", "init").code == 0
    assert modelyard("config", "show", "modelyard.yaml").out == modelyard("config", "show").out
    (tmp_path / "modelyard.yaml").write_text("content")
    result = modelyard("config", "init")
    assert (result.code, (tmp_path / "modelyard.yaml").read_text()) == (2, "content")
    assert "modelyard.yaml" in result.err
    assert "missing" in modelyard("config", "init", "missing/x.yaml").err


def test_config_schema_and_reference_are_printed(modelyard):
    assert json.loads(modelyard("config", "schema").out)["required"] == ["name", "data"]
    assert modelyard("config", "reference").out == (DOCS / "config.md").read_text(encoding="utf-8")


def test_an_unwritable_file_is_a_machine_error(modelyard, tmp_path):
    (tmp_path / "x.yaml").mkdir()
    result = modelyard("compile", "-o", tmp_path / "x.yaml")
    assert (result.code, "x.yaml" in result.err, "bug" in result.err) == (15, True, False)


@pytest.mark.parametrize("command", [("compile", "-o"), ("config", "init")])
def test_a_file_that_cannot_be_written_is_a_machine_error_without_a_partial_file(
    modelyard, tmp_path, monkeypatch, command
):
    folder = tmp_path / "out"
    folder.mkdir()
    write = Path.write_text

    def fail(path, *arguments, **options):
        if path.parent == folder:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", fail)
    result = modelyard(*command, folder / "x.yaml")
    assert (result.code, str(folder / "x.yaml") in result.err) == (15, True)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("file", ["x.txt", "missing/x.yaml"])
def test_compile_rejects_an_invalid_file_name(modelyard, file):
    result = modelyard("compile", "-o", file, "--output=json")
    assert result.code == 2


def test_report_prints_the_path_of_the_latest_run(modelyard, tmp_path):
    assert modelyard("report").code == 7
    home = tmp_path / ".modelyard"
    for name in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        folder = home / "runs" / name
        assert create_ended_run(home, name, report=str(folder / "report.html")) == folder
        (folder / "report.html").write_text("<p>fine</p>")
    assert modelyard("report").out == f"{folder / 'report.html'}\n"
    assert modelyard.json("report", "20260101-000000-aaaa")["run"].endswith("aaaa")
    (folder / "report.html").unlink()
    result = modelyard("report")
    assert result.code == 7
    assert "20260102-000000-bbbb" in result.err
    assert "has no report" in result.err


@pytest.mark.usefixtures("store")
def test_the_report_of_a_missing_version_is_an_error(modelyard):
    assert modelyard("report", "missing").code == 7
    assert modelyard("report", "tiny", "9").code == 7


def test_doctor_reports_passed_and_failed_checks(modelyard, monkeypatch, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MODELYARD_SERVING__PORT", str(taken.getsockname()[1]))
        result = modelyard("doctor", "--output", "json")
    checks = {check["name"]: check for check in json.loads(result.out)}
    assert result.code == 1
    assert not checks["port"]["ok"]
    assert "--port" in checks["port"]["message"]
    network = ["proxy", "certificates", "netrc", "keras", "variables", "output"]
    assert list(checks) == ["python", "packages", "cpu", "disk", "store", "port", *network]
    assert all(checks[name]["ok"] for name in ("python", "packages", "disk", "store", *network))
    invalid = {"ALL_PROXY": "socks5://a:1", "SSL_CERT_FILE": "/missing", "KERAS_BACKEND": "torch"}
    invalid |= {"KUBECONFIG": "/missing", "MODELYARD_STORE_PORT": "tcp://10.0.0.7:80"}
    with monkeypatch.context() as patch:
        for name, value in invalid.items():
            patch.setenv(name, value)
        result = modelyard("doctor", "-e", "kind", "--store", "shop", "--output", "json")
    checks = {check["name"]: check for check in json.loads(result.out)}
    assert [name for name in (*network, "cluster") if not checks[name]["ok"]] == [
        *("proxy", "certificates", "keras", "cluster")
    ]
    assert "service link" in checks["variables"]["message"]
    monkeypatch.setenv("MODELYARD_SERVING__PORT", "0")
    assert modelyard("doctor").code == 0
    (tmp_path / "file").write_text("")
    assert modelyard("doctor", "--store", tmp_path / "file").code == 1
    assert not (tmp_path / ".modelyard").exists()


@pytest.mark.parametrize("listening", [True, False])
def test_doctor_connects_to_the_proxy(modelyard, monkeypatch, listening):
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        if listening:
            proxy.listen()
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{proxy.getsockname()[1]}")
        result = modelyard("doctor", "--output", "json")
    (check,) = [item for item in json.loads(result.out) if item["name"] == "proxy"]
    assert check["ok"] == listening
    assert "secret" not in result.out


@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        ("MODELYARD_HOMR", "x", True),
        ("MODELYARD_TRAINING__EPOCH", "3", True),
        ("MODELYARD_TRAINING__EPOCHS", "3", False),
        ("MODELYARD_GATE__MINIMUM__ACCURACY", "0.5", False),
        ("MODELYARD_ENVIRONMENT__KIND", "local", False),
        ("MODELYARD_RUN_ID", "a", False),
        ("MODELYARD_SERVE_SERVICE_HOST", "10.0.0.7", False),
        ("MODELYARD_SERVE_PORT_80_TCP", "tcp://10.0.0.7:80", False),
    ],
)
def test_doctor_warns_about_unknown_variables(monkeypatch, name, value, warning):
    monkeypatch.setenv(name, value)
    check = doctor._run_check("variables", doctor.check_variables)
    assert (check.ok, check.warning) == (True, warning)
    assert ("did you mean" in check.message) == warning


def test_an_invalid_port_is_a_usage_error(modelyard):
    result = modelyard("serve", "tiny", "--port", "99999")
    assert result.code == 2
    assert "--port" in result.err
    assert "65535" in result.err


def test_an_invalid_section_names_the_option(modelyard):
    result = modelyard("serve", "tiny", "--tls-cert", "x.pem")
    assert result.code == 2
    assert "--tls-cert" in result.err
    assert "--set" not in result.err


@pytest.mark.usefixtures("store")
def test_serve_uses_host_port_and_version():
    command = [*MODELYARD, "serve", "tiny", "--version", "2", "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            ready = json.loads(server.stdout.readline())
            assert (ready["event"], ready["name"], ready["version"]) == ("ready", "tiny", 2)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0
