"""What a launcher and its unit do, seen from outside."""

import http.client
import json
import re
import socket
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from ex1_engine import parsed
from ex1_launch import SLOW_S, drawn_config, launched

from llminfra.grade import judge, judge_equal

KEY = "VLLM_API_KEY"
DTYPES = {"cpu": {"float32", "float"}, "t4": {"half", "float16"}, "a10g": {"bfloat16"}}
MOST_SHOWN = 5000


def test_r1_command_line(submission, draw):
    with submission.process() as call:
        for device in DTYPES:
            config = drawn_config(draw, submission, device)
            words = call("launcher:command", config)
            judge(
                isinstance(words, list)
                and words[:2] == ["vllm", "serve"]
                and all(isinstance(word, str) for word in words),
                given=f"command of a configuration for {device}",
                seen=words,
                expected="a list of words that begins with vllm serve",
            )
            judge_options(words[2:], config)


def judge_options(words, config):
    """Fail unless the engine reads what the configuration says."""
    device = config["device"]
    options, wrong = parsed(words)
    judge(not wrong, given=" ".join(words), seen=wrong, expected="a command line that vLLM 0.32.0 reads")
    cpu = device == "cpu"
    wanted = {
        "model": config["model"],
        "--served-model-name": [config["name"]],
        "--host": config["host"],
        "--port": config["port"],
        "--max-model-len": str(config["max_model_len"]),
        "--max-num-seqs": config["max_num_seqs"],
        "--shutdown-timeout": config["drain_s"],
        "--enforce-eager": True if cpu else None,
        "--kv-cache-memory-bytes": str(config["kv_cache_bytes"]) if cpu else None,
        "--gpu-memory-utilization": options.get("--gpu-memory-utilization")
        if cpu
        else config["gpu_memory_utilization"],
    }
    judge_equal({name: options.get(name) for name in wanted}, wanted, given=f"device {device}")
    judge(
        options.get("--dtype") in DTYPES[device],
        given=f"device {device}",
        seen=options.get("--dtype"),
        expected=" or ".join(sorted(DTYPES[device])),
    )


def test_r1_environment_and_key(submission, draw):
    config, key = drawn_config(draw, submission), f"sk-{draw.randrange(10**12)}"
    with launched(submission, config, {KEY: key}) as launch:
        launch.until_started()
        first = launch.seen[0]
        judge_equal(first["env"], {**config["env"], KEY: key}, given="the engine's environment")
        shown = " ".join(first["argv"])
        judge(key not in shown, given="a key in VLLM_API_KEY", seen=shown, expected="a command line without the key")
        judge_options(first["argv"][1:], config)


def test_r2_ready_when_it_answers(submission, draw):
    config, key = drawn_config(draw, submission), f"sk-{draw.randrange(10**12)}"
    told = {"load_s": 0.2, "healthy_s": 0.2, "warm_s": 0.5, "noise_bytes": draw.randrange(150_000, 300_000)}
    with launched(submission, config, {KEY: key}, **told) as launch:
        launch.until_ready()
        done = [one for one in launch.seen if one.get("warm")]
        judge(
            bool(done),
            given="an engine that is healthy before it can answer",
            seen="the launcher called it ready, and no completion had been answered",
            expected="ready after a completion of status 200",
        )
        judge_equal(done[-1]["tokens"], 1, given="max_tokens of the launcher's question")
        judge_equal(
            launch.running.out.splitlines()[0],
            f"ready http://127.0.0.1:{config['port']}/v1",
            given="the line on standard output",
        )
        asked = len([one for one in launch.seen if "path" in one])
        time.sleep(0.2)
        judge_equal(len([one for one in launch.seen if "path" in one]), asked, given="completions once it is ready")
        judge(launch.status is None, given="an engine that is ready", seen=launch.status, expected="it runs on")


def test_r2_tells_systemd(submission, draw):
    with tempfile.TemporaryDirectory(prefix="llg-") as folder, ExitStack() as stack:
        told = {}
        for name in (f"{folder}/notify", f"@llg{draw.randrange(10**9)}@notify"):
            opened = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            opened.bind(f"\0{name[1:]}" if name.startswith("@") else name)
            opened.settimeout(SLOW_S / 3)
            launch = launched(submission, drawn_config(draw, submission), {"NOTIFY_SOCKET": name}, load_s=0.1)
            told[name] = opened, stack.enter_context(launch)
        for name, (opened, launch) in told.items():
            launch.until_ready()
            try:
                said = opened.recv(1000).decode()
            except TimeoutError:
                said = "nothing"
            judge("READY=1" in said.split(), given=f"NOTIFY_SOCKET={name}", seen=said, expected="READY=1")
            done = any(one.get("warm") for one in launch.seen)
            judge(done, given=f"NOTIFY_SOCKET={name}", seen="READY=1 before an answer", expected="after it")


def test_r3_an_engine_that_dies_or_is_late(submission, draw):
    says = [f"INFO {number}: {draw.randrange(10**9)}" for number in range(4)]
    reason = f"ValueError: No available memory for the cache blocks {draw.randrange(10**9)}"
    code = draw.randrange(3, 90)
    cases = {
        "an engine that dies while it loads": {"dies": code, "says": [*says, reason]},
        "an engine that is never healthy": {"healthy_s": 60.0, "says": [*says, reason]},
        "an engine that dies when it is ready": {"lives_s": 0.5, "says": says, "last": reason},
    }
    with ExitStack() as stack:
        launches = {
            given: stack.enter_context(
                launched(
                    submission,
                    drawn_config(draw, submission, ready_s=2.0 if "never" in given else 20),
                    load_s=0.1,
                    noise_bytes=50_000,
                    **told,
                )
            )
            for given, told in cases.items()
        }
        for given, launch in launches.items():
            status, _ = launch.until_ended()
            judge_equal(status, 1, given=f"{given}: exit status")
            err = launch.running.err
            judge(
                reason in err and says[-1] in err and len(err) < MOST_SHOWN,
                given=given,
                seen=err[-300:] if len(err) < MOST_SHOWN else f"{len(err)} characters",
                expected=f"the last lines of its log, with {reason!r}",
            )
            launch.judge_gone(given)
            ready = "ready " in launch.running.out
            judge_equal(ready, "when it is ready" in given, given=f"{given}: called ready")


def test_r4_stopping(submission, draw):
    pieces = [f"{draw.randrange(10**6)} " for _ in range(12)]
    stop_s, last = draw.randrange(8, 12) / 10, f"INFO the last line {draw.randrange(10**9)}"
    with ExitStack() as stack:
        drains = stack.enter_context(
            launched(submission, drawn_config(draw, submission), pieces=pieces, ends_when_told=True)
        )
        config = drawn_config(draw, submission, stop_s=stop_s)
        stubborn = stack.enter_context(launched(submission, config, stubborn=True, says=[last]))
        loads = stack.enter_context(launched(submission, drawn_config(draw, submission), load_s=60.0))
        drains.until_ready()
        lines: list[str] = []
        reading = threading.Thread(target=read_stream, args=(drains.config, lines))
        reading.start()
        drains.until(lambda: len(lines) > 3, "the engine streams")
        drains.running.terminate()
        loads.until_started()
        loads.running.terminate()
        stubborn.until_ready()
        stubborn.running.terminate()
        reading.join()
        judge(
            lines[-1:] == ["data: [DONE]"] and pieces[-1].strip() in lines[-2],
            given=f"SIGTERM while an answer of {len(pieces)} pieces streams",
            seen=f"{len(lines)} events, the last is {lines[-1:]}",
            expected="the whole answer",
        )
        given = "SIGTERM, and an engine that drains and ends"
        judge_equal(drains.until_ended()[0], 0, given=f"{given}: exit status")
        times = [one for one in drains.seen if "signal" in one]
        judge_equal(len(times), 1, given=f"{given}: times that the engine got SIGTERM")
        drains.judge_gone(given)
        judge_equal(loads.until_ended()[0], 0, given="SIGTERM while it loads: exit status")
        loads.judge_gone("SIGTERM while it loads")
        given = f"an engine that ignores SIGTERM, stop_s {stop_s:g}"
        judge_equal(stubborn.until_ended()[0], 1, given=f"{given}: exit status")
        stubborn.judge_gone(given)
        err = stubborn.running.err
        judge(last in err, given=given, seen=err[-200:], expected=f"the last lines of its log, with {last!r}")
        took = stubborn.stopped_after_s()
        judge(
            0.5 * stop_s < took < stop_s + 2, given=given, seen=f"it ended after {took:.1f} s", expected=f"{stop_s:g} s"
        )


def read_stream(config, lines):
    """Append the lines of a streamed answer to a list as they come."""
    body = {"model": config["name"], "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    url = f"http://127.0.0.1:{config['port']}/v1/chat/completions"
    try:
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=SLOW_S) as response:
            lines.extend(line.decode().strip() for line in response if line.strip())
    except (OSError, http.client.HTTPException) as error:
        lines.append(type(error).__name__)


def judge_refused(second, port, given):
    """Fail unless a launcher refuses a port, in one line, without an engine."""
    status, _ = second.until_ended()
    judge_equal(status, 2, given=f"{given}: exit status")
    lines = second.running.err.strip().splitlines()
    judge(
        len(lines) == 1 and str(port) in lines[0], given=given, seen=lines[-3:], expected=f"one line that names {port}"
    )


def test_r5_a_port_in_use(submission, draw):
    config = drawn_config(draw, submission)
    with socket.create_server(("127.0.0.1", 0)) as other, ExitStack() as stack:
        port = other.getsockname()[1]
        first = stack.enter_context(launched(submission, config, loads_until=f"{config['run']}/loaded"))
        foreign = stack.enter_context(launched(submission, drawn_config(draw, submission, port=port)))
        first.until_started()
        second = stack.enter_context(launched(submission, config))
        judge_refused(second, config["port"], "a second launcher while the first one's engine loads")
        judge_refused(foreign, port, "another program listens on the port")
        judge_equal(foreign.seen, [], given="the port is in use: what the engine saw")
        Path(config["run"], "loaded").touch()
        first.until_ready()
        third = stack.enter_context(launched(submission, config))
        judge_refused(third, config["port"], "a second launcher while the first one serves")
        started = [one for one in first.seen if "argv" in one]
        judge_equal(len(started), 1, given="launchers that were refused: engines that were started")
        judge(first.status is None, given="a second launcher", seen="the first one has ended", expected="it runs on")
    with launched(submission, config) as again:
        again.until_ready()  # the first one was killed: neither its lock nor its closed connections may be in the way


def seconds(text):
    """Return the seconds of a systemd time span; infinity for none."""
    units = {"": 1, "s": 1, "sec": 1, "seconds": 1, "min": 60, "m": 60, "minutes": 60, "h": 3600, "ms": 0.001}
    if text.strip() in ("infinity", "0"):
        return float("inf")
    found = re.findall(r"([\d.]+)\s*([a-z]*)", text)
    return sum(float(number) * units[unit] for number, unit in found if unit in units)


def read_unit(path):
    """Return the settings of a unit by section and name, each a list; a line that ends with a backslash goes on."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not re.match(r"\s*[#;]", line)]
    found = {}
    section = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if header := re.match(r"\s*\[(\w+)\]\s*$", line):
            section = header[1]
        elif "=" in line:
            name, _, value = line.partition("=")
            values = found.setdefault((section, name.strip()), [])
            values.append(value.strip())
            if not value.strip():
                values.clear()
    return found


YES = {"yes", "true", "on", "1"}


def test_r6_unit(submission):
    path = Path(submission.folder) / "vllm.service"
    judge(path.is_file(), given="your folder", seen="no vllm.service", expected="a unit")
    unit = read_unit(path)

    def last(name, section="Service", default=""):
        return (unit.get((section, name)) or [default])[-1]

    start = last("ExecStart").split()
    judge(
        len(start) >= 3
        and start[0].startswith("/")
        and start[-1].endswith(".json")
        and any("launcher.py" in one for one in start),
        given="ExecStart",
        seen=" ".join(start),
        expected="an absolute path of Python, launcher.py and a configuration",
    )
    judge_equal(last("Type"), "notify", given="Type: the launcher tells systemd when it is ready")
    user = last("User", default="root")
    dynamic = last("DynamicUser").lower() in YES
    judge(
        dynamic or user not in ("root", "0", ""),
        given="User",
        seen=user or "none, which means root",
        expected="an account without rights",
    )
    judge(bool(last("EnvironmentFile")), given="EnvironmentFile", seen="none", expected="the file with the key")
    inline = " ".join(unit.get(("Service", "Environment"), []))
    judge("KEY" not in inline, given="Environment", seen=inline, expected="no key: everybody may read a unit")
    restart = last("Restart", default="no")
    judge(restart in ("on-failure", "always"), given="Restart", seen=restart, expected="on-failure or always")
    pause = seconds(last("RestartSec", default="100ms"))
    judge(
        5 <= pause < 600,
        given="RestartSec",
        seen=last("RestartSec", default="100ms, the default"),
        expected="5 s to 10 minutes",
    )
    judge_equal(last("KillMode", default="control-group"), "mixed", given="KillMode: whom SIGTERM reaches")
    judge(
        last("KillSignal", default="SIGTERM") in ("SIGTERM", "15"),
        given="KillSignal",
        seen=last("KillSignal"),
        expected="SIGTERM",
    )
    for name, default, least in (("TimeoutStopSec", "90", 80), ("TimeoutStartSec", "90", 630)):
        text = last(name, default=last("TimeoutSec", default=default))
        judge(
            least <= seconds(text),
            given=f"{name}, with stop_s 75 and ready_s 600",
            seen=text,
            expected=f"{least} s or more",
        )
    judge(
        last("NoNewPrivileges").lower() in YES,
        given="NoNewPrivileges",
        seen=last("NoNewPrivileges") or "none",
        expected="yes",
    )
    hiding = [
        name for name in ("PrivateDevices", "MemoryDenyWriteExecute", "PrivateNetwork") if last(name).lower() in YES
    ]
    judge_equal(hiding, [], given="settings that take the GPU, compiled kernels or the network away")
    after = " ".join(unit.get(("Unit", "After"), []))
    judge("network-online.target" in after, given="After", seen=after or "none", expected="network-online.target")
    wanted = last("WantedBy", "Install")
    judge("multi-user.target" in wanted, given="WantedBy", seen=wanted or "none", expected="multi-user.target")
