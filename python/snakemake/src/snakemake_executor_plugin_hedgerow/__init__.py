"""A Snakemake executor that runs jobs on a grid of Hedgerow, without a shared file system."""

# No `from __future__ import annotations`: Snakemake reads the types of the settings.
import asyncio
import base64
import glob
import json
import os
import secrets
import shlex
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from hedgerow import Grid, GridError, HedgerowError, LocalGrid
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase
from snakemake_interface_executor_plugins.utils import format_cli_arg, join_cli_args

from . import _tasks
from ._files import SOURCES, Files, Needs, archive, depth, small_enough
from ._follow import Follower

#: An open job whose client is gone for so long closes itself.
_OPEN_TIMEOUT = "1h"
#: Tasks in one request.
_TASKS_MAX = 200
#: Longest pause between two looks at what ended, seconds; an end that comes earlier ends it.
_LOOK_S = 1.0
#: How many folders above the working directory sources and files may lie.
_ABOVE_MAX = 16


@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]
    """Settings, as arguments ``--hedgerow-…`` of Snakemake."""

    ticket: Optional[str] = field(
        default=None,
        metadata={"help": "File with a ticket of the grid. Without it HEDGE_TICKET counts, else this machine's supervisor."},
    )
    local: bool = field(
        default=False,
        metadata={"help": "Use a grid of this process alone, with one worker and nothing to set up."},
    )
    python: Optional[str] = field(
        default=None,
        metadata={"help": "Interpreter on workers that has Snakemake. By default python3; on a local grid this one."},
    )
    on_workers: str = field(
        default="/usr,/opt",
        metadata={"help": "Folders that every worker has, separated by commas: inputs with such a path are not sent."},
    )
    sources: Optional[str] = field(
        default=None,
        metadata={
            "help": "Further files that the Snakefile reads, as patterns separated by commas. Snakefiles, configuration "
            "files, scripts, and files in Git are sent anyway."
        },
    )


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=True,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    # They are variables of the task.
    pass_envvar_declarations_to_cmd=False,
    # Workers have no network.
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=0,
    can_transfer_local_files=True,
)


class Executor(RemoteExecutor):  # type: ignore[misc]
    """Runs each job or group of a workflow as a task of one open job of the grid."""

    def __post_init__(self) -> None:
        """Nothing is started before the first job."""
        settings = self.workflow.executor_settings
        self._local = LocalGrid() if settings.local else None
        self._grid = self._local.connect() if self._local is not None else Grid(settings.ticket)
        self._python = settings.python or _tasks.default_python(settings.local)
        self._files = Files(self._grid, [name for name in settings.on_workers.split(",") if name])
        self._job: Optional[int] = None
        self._follower: Optional[Follower] = None
        self._running: set[str] = set()
        self._nonce = secrets.token_hex(2)
        self._serial = 0
        self._sources: Optional[tuple[list[str], dict[str, Path]]] = None

    # Submission

    def run_jobs(self, jobs: list[Any]) -> None:
        """Submits jobs that are ready, many in one request."""
        fresh = []
        for job in jobs:
            self.run_job_pre(job)
            if not self._take_over(job):
                fresh.append(job)
        for at in range(0, len(fresh), _TASKS_MAX):
            self._submit(fresh[at : at + _TASKS_MAX])

    def run_job(self, job: Any) -> None:
        """Submits one job."""
        if not self._take_over(job):
            self._submit([job])

    def _submit(self, jobs: list[Any]) -> None:
        planned = []
        for job in jobs:
            try:
                planned.append((job, self._next_name(job), self._files.needs(_tasks.inputs(job))))
            except WorkflowError as error:
                self.report_job_error(SubmittedJobInfo(job), msg=f"{error}. ")
        if not planned:
            return
        try:
            number = self._open()
            self._extend(number, planned)
        except (HedgerowError, OSError) as error:
            raise WorkflowError(f"The grid did not take {len(planned)} jobs: {error}") from error
        for job, task, _ in planned:
            self._wait_for(number, task, job)

    def _extend(self, number: int, planned: list[tuple[Any, str, Needs]]) -> None:
        workdir, shared = self._shared()
        tables, specs, brought = [], {}, dict(shared)
        for job, task, needs in planned:
            tables.append(_tasks.write_task(task, job, self._python, self.envvars(), needs))
            spec = _tasks.describe(task, job, self._arguments(job), self._precommand(), workdir, needs)
            specs[f"{task}.json"] = {"base64": base64.b64encode(json.dumps(spec).encode()).decode()}
            brought.update(needs.brought)
        for again in (False, True):
            try:
                files = {**specs, **self._files.written(brought)}
                return self._grid.extend(number, tables, files, secrets.token_hex(16))
            except GridError as error:
                if error.kind != "unknown" or again:
                    raise
                self._files.forget_uploads()

    def _next_name(self, job: Any) -> str:
        self._serial += 1
        return f"{_tasks.name_of(job)}-{self._nonce}-{self._serial}"

    def _wait_for(self, number: int, task: str, job: Any) -> None:
        assert self._follower is not None
        self._running.add(task)
        self._files.expect(task, _tasks.products(job))
        self._follower.want([task])
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=f"{number}/{task}"))

    # The job of the grid

    def _open(self) -> int:
        if self._job is None:
            name = os.path.basename(os.getcwd()) or "snakemake"
            job = {"name": name, "qos": {"open_timeout": _OPEN_TIMEOUT}}
            self._follow(self._grid.open_job(job, secrets.token_hex(16)))
        assert self._job is not None
        return self._job

    def _follow(self, number: int) -> None:
        self._job = number
        self._follower = Follower(self._grid, number, self._files.fetch)

    def _take_over(self, job: Any) -> bool:
        """Waits for the task that an earlier run of Snakemake submitted for this job, if the grid still has it."""
        known = self.dag.incomplete_external_jobid(_tasks.members(job)[0])
        number, _, task = (known or "").partition("/")
        if not task or not number.isdigit() or self._job not in (None, int(number)):
            return False
        try:
            view = self._grid.request("GET", f"/v1/jobs/{number}/tasks/{task}")
        except GridError:
            return False
        is_open = isinstance(view["job"].get("open"), dict)
        if not is_open or any(found["state"] in ("failed", "skipped") for found in view["tasks"]):
            return False
        if self._job is None:
            self._follow(int(number))
        self.logger.info(f"Task {task} of job {number} of the grid goes on.")
        self._wait_for(int(number), task, job)
        return True

    # What a task runs

    def get_job_args(self, job: Any) -> str:
        """Arguments of Snakemake for one job or group; a worker waits for no files."""
        return str(RealExecutor.get_job_args(self, job, cores=_tasks.cpus(job)))

    def get_python_executable(self) -> str:
        """The interpreter on workers."""
        return self._python

    def _arguments(self, job: Any) -> list[str]:
        factory = self.workflow.spawned_job_args_factory
        line = join_cli_args(
            [
                format_cli_arg("--snakefile", self.get_snakefile()),
                self.get_job_args(job),
                factory.general_args(executor_common_settings=self.common_settings),
                format_cli_arg("--mode", self.get_exec_mode().item_to_choice()),
            ]
        )
        return _tasks.without_directory(shlex.split(line))

    def _precommand(self) -> str:
        return str(self.workflow.remote_execution_settings.precommand or "")

    def _shared(self) -> tuple[list[str], dict[str, Path]]:
        """The folders of the working directory that tasks have too, and the files that all tasks get."""
        if self._sources is None:
            paths, needed = self._source_paths()
            above = max(map(depth, paths), default=0)
            if above > _ABOVE_MAX:
                raise WorkflowError(f"Sources lie {above} folders above the working directory, more than {_ABOVE_MAX}.")
            workdir = Path.cwd().parts[1:]
            # One more than needed, so that inputs beside the working directory have a place too.
            kept = list(workdir[-(above + 1) :]) or ["work"]
            packed = Path(self.tmpdir) / SOURCES
            packed.write_bytes(archive(small_enough(paths, needed), kept))
            self._sources = kept, {_tasks.PROGRAM: Path(__file__).with_name("_worker.py"), SOURCES: packed}
        return self._sources

    def _source_paths(self) -> tuple[set[str], set[str]]:
        """All sources of the workflow, and those of them that it cannot do without."""
        try:
            found = set(self.dag.get_sources())
        except FileNotFoundError as error:
            raise WorkflowError("Snakemake asks Git which files belong to the workflow. Install git.") from error
        patterns = (self.workflow.executor_settings.sources or "").split(",")
        extra = {path for pattern in patterns for path in glob.glob(pattern, recursive=True)}
        needed = extra | {os.path.relpath(path) for path in self.workflow.configfiles}
        return found | extra, needed

    # What became of them

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Reports jobs that ended, and yields the others."""
        for info in active_jobs:
            assert self._follower is not None and info.external_jobid is not None
            number, _, task = info.external_jobid.partition("/")
            ended = self._follower.take(task)
            if ended is None:
                if self._follower.broken is not None:
                    raise WorkflowError(f"Job {number} of the grid cannot be followed: {self._follower.broken}")
                yield info
                continue
            self._running.discard(task)
            if not ended.why:
                self.report_job_success(info)
                continue
            logs = [] if ended.log is None else [str(ended.log)]
            why = f"Task {task} failed: {ended.why}. See hedge explain {number} {task}. "
            self.report_job_error(info, msg=why, aux_logs=logs)

    async def sleep(self) -> None:
        """Waits until something ended."""
        loop = asyncio.get_running_loop()
        if self._follower is None:
            await asyncio.sleep(_LOOK_S / 20)
            return
        await loop.run_in_executor(None, self._follower.news.wait, _LOOK_S)
        self._follower.news.clear()

    def cancel_jobs(self, active_jobs: Iterable[SubmittedJobInfo]) -> None:
        """Ends all tasks, running ones too."""
        if self._job is not None and self._running:
            try:
                self._grid.cancel_tasks(self._job, sorted(self._running))
            except GridError as error:
                self.logger.error(f"Job {self._job} of the grid goes on: {error}. End it with hedge cancel {self._job}.")

    def shutdown(self) -> None:
        """Lets the grid drop what was fetched, and its job end."""
        if self._follower is not None:
            self._follower.news.set()
        super().shutdown()
        if self._follower is not None:
            self._follower.close()
        if self._job is not None:
            try:
                self._grid.close_job(self._job)
            except GridError as error:
                self.logger.error(f"Job {self._job} of the grid stays open: {error}. It ends by itself.")
        self._grid.close()
        if self._local is not None:
            self._local.close()

