"""Measures the dashboard in Chromium, each figure beside its limit.

``python crates/gateway/benchmarks/page.py target/release changes --runs 10`` kills workers and leaders, presses keys,
and measures until the page shows it. ``... large`` shows a job of 100,000 tasks on 1,000 simulated workers. It needs
``pip install playwright``, and the Debian packages ``chromium``, ``xvfb`` and ``xdotool``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Optional

from playwright.sync_api import Page, sync_playwright

#: Longest time from an event until the page shows it, ms.
SHOWN_WITHIN_MS = 500
#: Longest time until the page shows what it is opened for, ms.
PAINTED_WITHIN_MS = 1000
#: Frames that are drawn while the timeline scrolls, a second.
FRAMES_PER_SECOND = 60
#: Longest time that anything may take, s.
PATIENCE = 60.0


def until(what: str, found: Callable[[], Any]) -> Any:
    """Asks again and again until there is something."""
    since = time.monotonic()
    while time.monotonic() - since < PATIENCE:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"waited too long for {what}")


def told(out: Path) -> Any:
    """What a command has printed as JSON, once it has."""
    try:
        return json.loads(out.read_text())
    except ValueError:
        return None


class Grid:
    """Supervisors, workers and a gateway, each with a folder of its own."""

    def __init__(self, hedge: Path, folder: Path, supervisors: int) -> None:
        self.hedge, self.folder = hedge, folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.peers: dict[str, str] = {}
        self.supervise("supervisor-0", [])
        self.ticket = self.call("supervisor-0", "ticket", "worker")["ticket"]
        self.admin = self.call("supervisor-0", "ticket", "admin")["ticket"]
        for number in range(1, supervisors):
            self.supervise(f"supervisor-{number}", ["--join", self.ask("ticket", "supervisor")["ticket"]])
        places = lambda: [one["place"] for one in self.ask("members") if one.get("place") not in (None, "learner")]
        until("votes", lambda: len(places()) == supervisors)

    def start(self, name: str, args: list[str], environment: Optional[dict[str, str]] = None) -> Path:
        """Starts `hedge`; gives the file with what it prints."""
        out = self.folder / f"{name}.out"
        log = (self.folder / f"{name}.log").open("ab")
        command = [str(self.hedge), *args, "--dir", str(self.folder / name)]
        env = {**os.environ, **(environment or {}), "HOME": str(self.folder)}
        self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out.open("wb"), stderr=log, env=env)
        return out

    def supervise(self, name: str, args: list[str]) -> None:
        """Starts a supervisor and waits until it listens."""
        out = self.start(name, ["supervisor", "--json", "--listen", "127.0.0.1:0", *args])
        self.peers[name] = until(name, lambda: told(out))["peer"]

    def work(self, name: str, *args: str, dedicated: bool = True) -> None:
        """Starts a worker."""
        own = ["--dedicated"] if dedicated else []
        line = ["worker", "--listen", "127.0.0.1:0", "--cpus", "1", "--no-sandbox", "--join", self.ticket, *own, *args]
        self.start(name, line)

    def call(self, name: str, *args: str) -> Any:
        """What `hedge` prints in a folder."""
        line = [str(self.hedge), *args, "--dir", str(self.folder / name), "--json"]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        if done.returncode:
            raise SystemExit(f"{args}: {done.stderr.decode()}")
        return json.loads(done.stdout)

    def ask(self, *args: str) -> Any:
        """What an administrator is told."""
        return self.call("client", *args, "--join", self.admin)

    def leader(self) -> str:
        """The folder of the supervisor that leads."""
        seats = until("a leader", lambda: [one["peer"] for one in self.ask("members") if one.get("place") == "leader"])
        return next(name for name, peer in self.peers.items() if peer == seats[0])

    def dashboard(self) -> str:
        """Starts the gateway; gives the address of its page."""
        out = self.start("client", ["ui", "--json", "--no-browser", "--join", self.admin])
        return str(until("the gateway", lambda: told(out))["url"])

    def kill(self, name: str) -> None:
        """Kills a process."""
        self.processes[name].send_signal(signal.SIGKILL)

    def end(self) -> None:
        """Ends all processes."""
        for process in self.processes.values():
            process.kill()
            process.wait()


@contextmanager
def browser(url: str, hash: str, width: int = 1280) -> Iterator[Page]:
    """A page at a view."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": 800}, bypass_csp=True)
        page.goto(url)
        page.wait_for_selector("#link.live", timeout=PATIENCE * 1000)
        page.evaluate("hash => { location.hash = hash }", hash)
        yield page
        chromium.close()


def pushed(page: Page, shown: str, act: Callable[[], Any]) -> float:
    """The time from an action until the page changed so that an expression holds, ms."""
    page.evaluate(
        """shown => {
          window.at = null;
          const holds = new Function(`return Boolean(${shown})`);
          if (holds()) throw new Error("it is shown already");
          const watch = new MutationObserver(() => {
            if (!holds()) return;
            watch.disconnect();
            window.at = Date.now();
          });
          watch.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
        }""",
        shown,
    )
    since = time.time()
    act()
    page.wait_for_function("window.at", timeout=PATIENCE * 1000)
    return float(page.evaluate("window.at")) - since * 1000


def line(what: str, times: list[float], limit: float, unit: str = "ms") -> None:
    """Prints a figure."""
    worst = max(times)
    print(f"{what:<28} {statistics.median(times):7.0f} {unit} at the median, {worst:5.0f} at most of {len(times)}; limit {limit} {unit}", flush=True)


def killed_workers(grid: Grid, page: Page, runs: int) -> None:
    """From the end of a worker until its tile says so."""
    times = []
    for run in range(runs):
        grid.work(f"worker-{run}")
        page.wait_for_selector(".tile.live", timeout=PATIENCE * 1000)
        time.sleep(0.1 * (run % 7))
        times.append(pushed(page, "!document.querySelector('.tile.live')", lambda: grid.kill(f"worker-{run}")))
    line("a killed worker", times, SHOWN_WITHIN_MS)


def pressed_keys(grid: Grid, page: Page, runs: int) -> None:
    """From an owner's key press until the tile says so."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        display = f":{os.read(read, 16).decode().strip()}"
        rules = grid.folder / "owner.toml"
        others = ["evdev", "wayland", "processes", "sessions", "logind", "screensaver", "mutter", "microphone", "voice", "power", "network"]
        rules.write_text(f'[when]\nresume_after = "1s"\n[sources]\nwithout = {json.dumps(others)}\ndisplay = "{display}"\n')
        grid.work("owned", "--owner", str(rules), dedicated=False)
        times = []
        for run in range(runs):
            page.wait_for_selector(".tile.live", timeout=PATIENCE * 1000)
            time.sleep(0.1 * (run % 7))
            press = lambda: subprocess.run(["xdotool", "key", "a"], env={**os.environ, "DISPLAY": display}, check=True)
            times.append(pushed(page, "document.querySelector('.tile.away')", press))
        line("an owner's key press", times, SHOWN_WITHIN_MS)
    finally:
        server.kill()
        server.wait()


def killed_leaders(grid: Grid, page: Page, runs: int) -> None:
    """From the end of a leader until the page says that it is gone, and that another leads."""
    lost, led = [], []
    for run in range(runs):
        leader = grid.leader()
        time.sleep(0.1 * (run % 7))
        page.evaluate("window.led = 0")
        rows = "[...document.querySelectorAll('tbody tr')].map((row) => row.innerText)"
        before = page.evaluate(f"{rows}.filter((row) => row.includes('another supervisor leads')).length")
        since = time.time()
        gone = f"!document.querySelector('#link.live') || {rows}.filter((row) => row.includes('another supervisor leads')).length > {before}"
        lost.append(pushed(page, gone, lambda: grid.kill(leader)))
        page.wait_for_function(f"{rows}.filter((row) => row.includes('another supervisor leads')).length > {before}", timeout=PATIENCE * 1000)
        led.append((time.time() - since) * 1000)
        grid.processes[leader].wait()
        grid.supervise(leader, [])
        page.wait_for_selector("#link.live", timeout=PATIENCE * 1000)
        time.sleep(1)
    line("a killed leader", lost, SHOWN_WITHIN_MS)
    line("another leader", led, SHOWN_WITHIN_MS)


def changes(binaries: Path, runs: int) -> None:
    """What happens, until it is shown."""
    for supervisors, hash, measure in [(1, "#/machines", killed_workers), (1, "#/machines", pressed_keys), (3, "#/faults", killed_leaders)]:
        with tempfile.TemporaryDirectory(prefix="hedge-page-") as folder, ExitStack() as stack:
            grid = Grid(binaries / "hedge", Path(folder), supervisors)
            stack.callback(grid.end)
            page = stack.enter_context(browser(grid.dashboard(), hash))
            measure(grid, page, runs)


#: Scrolls the timeline to its end and back for some seconds; gives the times of frames, ms.
SCROLL = """async (seconds) => {
  const box = document.querySelector(".timeline");
  const frames = [];
  const since = performance.now();
  for (let last = since; last - since < seconds * 1000; ) {
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - last);
    last = now;
    const way = box.scrollHeight - box.clientHeight;
    box.scrollTop = way * (0.5 - 0.5 * Math.cos((now - since) / 1000));
  }
  return frames.slice(1);
}"""


def painted(page: Page, url: str, shown: str) -> float:
    """The time from the navigation until the page shows something, ms."""
    page.goto("about:blank")
    page.add_init_script(
        f"""window.shownAt = null;
        const look = () => {{
          if (document.body && Boolean({shown})) requestAnimationFrame(() => setTimeout(() => (window.shownAt = performance.now())));
          else requestAnimationFrame(look);
        }};
        requestAnimationFrame(look);"""
    )
    page.goto(url)
    page.wait_for_function("window.shownAt", timeout=PATIENCE * 1000)
    return float(page.evaluate("window.shownAt"))


def large(binaries: Path, url: Optional[str], workers: int, seconds: int) -> None:
    """A large job and many workers."""
    with ExitStack() as stack:
        if url is None:
            command = [str(binaries / "hedge-lab"), "bench", "gateway", "--seconds", "1", "--workers", str(workers), "--hold"]
            lab = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
            stack.callback(lambda: (lab.send_signal(signal.SIGINT), lab.wait()))
            assert lab.stderr
            said = []
            for text in lab.stderr:
                said.append(text)
                if text.startswith("held:"):
                    break
            else:
                raise SystemExit(f"{' '.join(command)} ended before its grid was held: {''.join(said)}")
            folder = said[-1].split()[2].rstrip(";")
            out = Path(folder) / "ui.out"
            command = [str(binaries / "hedge"), "ui", "--no-browser", "--dir", folder, "--json"]
            gateway = subprocess.Popen(command, stdout=out.open("wb"), stdin=subprocess.DEVNULL)
            stack.callback(lambda: (gateway.kill(), gateway.wait()))
            url = str(until("the gateway", lambda: told(out))["url"])
        playwright = stack.enter_context(sync_playwright())
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        stack.callback(chromium.close)
        tiles = f"document.querySelectorAll('.tile').length >= {workers}"
        bars = r"/^100,\d{3} attempts on/.test(document.querySelector('.timeline canvas')?.getAttribute('aria-label') ?? '')"
        graph = "document.querySelector('svg.graph .node')"
        base, token = url.split("#token=")
        for what, hash, shown in [("all machines", "#/machines", tiles), ("the job's graph", "#/job/1", graph), ("all attempts", "#/job/1", bars)]:
            times = []
            for _ in range(5):
                context = chromium.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
                page = context.new_page()
                page.add_init_script(f"sessionStorage.setItem('hedge-token', '{token}')")
                times.append(painted(page, base + hash, shown))
                if what != "all attempts" or len(times) < 5:
                    context.close()
            line(what, times, PAINTED_WITHIN_MS)
        frames = page.evaluate(SCROLL, seconds)
        rate = 1000 * len(frames) / sum(frames)
        late = sum(1 for one in frames if one > 1.5 * 1000 / FRAMES_PER_SECOND)
        print(f"{'scrolling the timeline':<28} {rate:7.1f} frames a second, {late} of {len(frames)} late, longest {max(frames):.0f} ms; limit {FRAMES_PER_SECOND}")


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", type=Path, help="folder with hedge and hedge-lab")
    parser.add_argument("what", choices=["changes", "large"])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1000, help="simulated workers, for large")
    parser.add_argument("--seconds", type=int, default=10, help="how long the timeline is scrolled")
    parser.add_argument("--url", help="address of a dashboard that is there, for large")
    args = parser.parse_args()
    if args.what == "changes":
        changes(args.binaries, args.runs)
    else:
        large(args.binaries, args.url, args.workers, args.seconds)


if __name__ == "__main__":
    main()
