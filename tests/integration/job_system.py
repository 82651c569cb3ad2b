# SPDX-License-Identifier: Apache-2.0
"""Gateway, trainer and Redis as real processes, and small videos to feed them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import numpy as np
import psutil
from rq.registry import StartedJobRegistry
from rq.worker import Worker

from services.common.job_queue import training_queue, withdraw_training
from services.common.job_records import JobRecords
from services.common.jobs import TrainingJob
from services.common.redis_client import connect_redis
from services.supervisor.redis_server import redis_command
from services.supervisor.specs import http_answers, redis_answers
from styleavatar_core.data.video_writer import VideoWriter
from tests.integration.service_process import free_port

CONSENT = "I am the person in this video and agree to an avatar of me."
COUNT_STEPS = "tests.fakes.avatar_maker:count_steps"
START_TIMEOUT_S = 60.0


def wait_for(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout_s} s"
        time.sleep(0.05)


def write_clip(path: Path, seconds: float, size_px: int = 64) -> Path:
    """A video of moving noise: no face, but a true video."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (5, size_px, size_px, 3), dtype=np.uint8)
    with VideoWriter(path, fps=10, width=size_px, height=size_px) as writer:
        for index in range(round(seconds * 10)):
            writer.write(frames[index % 5])
    return path


def write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        for index in range(300):
            tone = np.sin(np.arange(1024, dtype=np.float32) * 0.05)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class JobSystem:
    """The processes that turn an upload into an avatar."""

    def __init__(self, data_folder: Path, maker: str = COUNT_STEPS) -> None:
        self.data_folder = data_folder
        self.log_path = data_folder / "all.log"
        self._log_start = 0
        self.maker = maker
        self._socket_folder = tempfile.TemporaryDirectory(prefix="styleavatar-")
        self._socket = Path(self._socket_folder.name) / "redis.sock"
        self.redis_url = f"unix://{self._socket}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._trainers: list[subprocess.Popen[bytes]] = []
        self.gateway_port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.gateway_port}", timeout=30)
        self.redis = connect_redis(self.redis_url)
        self.records = JobRecords(self.redis)

    def start_redis(self) -> None:
        self.redis_process = self._start(redis_command(self.data_folder, self._socket))
        wait_for(lambda: redis_answers(self.redis_url), START_TIMEOUT_S)

    def start_gateway(self, **settings: object) -> subprocess.Popen[bytes]:
        process = self._start_service("gateway", port=self.gateway_port, **settings)
        wait_for(lambda: http_answers(f"{self.http.base_url}/readyz"), START_TIMEOUT_S)
        self.gateway_process = process
        return process

    def start_trainer(self, **settings: object) -> subprocess.Popen[bytes]:
        own = {"metrics_port": free_port(), "maker": self.maker}
        settings = own | settings
        process = self._start_service("training", **settings)
        self._trainers.append(process)
        metrics = f"http://127.0.0.1:{settings['metrics_port']}/metrics"
        wait_for(lambda: http_answers(metrics), START_TIMEOUT_S)
        wait_for(lambda: process.pid in self._ready_trainers(), START_TIMEOUT_S)
        return process

    def upload(self, video: Path, **fields: str) -> httpx.Response:
        form = {"consent": CONSENT, "preset": "nano", "minutes": "0.1"} | fields
        with video.open("rb") as file:
            return self.http.post("/v1/avatars", data=form, files={"video": file})

    def wait_until(self, job_id: str, condition: Callable[[TrainingJob], object]) -> TrainingJob:
        try:
            wait_for(lambda: condition(self.records.get(job_id)))
        except AssertionError as error:
            error.add_note(f"The end of the log:\n{self.log_path.read_text()[-5000:]}")
            raise
        return self.records.get(job_id)

    def expire_executions(self) -> None:
        """Does to rq's records of executions what time does to them."""
        for key in self.redis.scan_iter("rq:execution:*"):
            self.redis.delete(key)

    def leave_cleaning_lock(self) -> None:
        """Leaves rq's lock behind, as a trainer does that is ended while it cleans registries."""
        # A trainer of the test before may hold it still.
        wait_for(lambda: training_queue(self.redis).acquire_maintenance_lock())

    def lose(self, job_id: str) -> None:
        """Does to a job what rq does when its worker dies between taking and starting it."""
        withdraw_training(self.redis, job_id)
        self.redis.delete(StartedJobRegistry(queue=training_queue(self.redis)).key)

    def is_in_queue(self, job_id: str) -> bool:
        """Says whether rq still knows the job."""
        return training_queue(self.redis).fetch_job(job_id) is not None

    def stack_traces(self) -> str:
        """Returns this test's logs from the first stack trace on; empty when there is none."""
        text = self.log_path.read_bytes()[self._log_start :].decode()
        return "".join(text.partition("Traceback")[1:])

    def begin_test(self) -> None:
        """Leaves out of later looks at the logs what was written before."""
        self._log_start = self.log_path.stat().st_size

    def stop_trainers(self) -> None:
        for trainer in self._trainers:
            trainer.terminate()
        for trainer in self._trainers:
            trainer.wait(30)
        self._trainers.clear()

    def stop(self) -> None:
        self.http.close()
        services = [process for process in self._processes if process is not self.redis_process]
        for group in (services, [self.redis_process]):  # none of them ends well without Redis
            for process in group:
                process.terminate()
            for process in group:
                process.wait(30)
        self.redis.close()
        self._socket_folder.cleanup()

    def _ready_trainers(self) -> set[int | None]:
        """Returns the processes that have put back what others left, and wait for jobs."""
        queue = training_queue(self.redis)
        return {worker.pid for worker in Worker.all(queue=queue, serializer=queue.serializer)}

    def _start_service(self, name: str, **settings: object) -> subprocess.Popen[bytes]:
        prefix = f"STYLEAVATAR_{name.upper()}_"
        own = {f"{prefix}{key.upper()}": str(value) for key, value in settings.items()}
        return self._start([sys.executable, "-m", f"services.{name}"], own)

    def _start(
        self, command: list[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        shared = {"REDIS_URL": self.redis_url, "STYLEAVATAR_DATA": str(self.data_folder)}
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                command, env=os.environ | shared | (environment or {}), stdout=log, stderr=log
            )
        self._processes.append(process)
        return process


def job_process(trainer: subprocess.Popen[bytes]) -> psutil.Process:
    """Returns the process that does the trainer's present job."""
    (process,) = psutil.Process(trainer.pid).children()
    return process


@contextmanager
def serving(data_folder: Path) -> Iterator[JobSystem]:
    """Runs Redis and a gateway; each test starts trainers of its own."""
    system = JobSystem(data_folder)
    try:
        system.start_redis()
        system.start_gateway()
        yield system
    finally:
        system.stop()


def events(system: JobSystem, job_id: str, after: str = "") -> list[tuple[str, str, dict]]:
    """Returns (id, name, job) of all events until the stream ends."""
    headers = {"Last-Event-ID": after} if after else {}
    url = f"/v1/training-jobs/{job_id}/events"
    found, fields = [], {}
    with system.http.stream("GET", url, headers=headers) as answer:
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
                fields = {}
    return found


def start_job(system: JobSystem, clip: Path) -> tuple[str, str]:
    accepted = system.upload(clip)
    assert accepted.status_code == 202, accepted.text
    return accepted.json()["job_id"], accepted.json()["avatar_id"]


def leftovers(system: JobSystem, job_id: str, avatar_id: str) -> list[Path]:
    """Returns every file and folder that still carries the name of a job or its avatar."""
    hidden = list(system.data_folder.rglob(".*-*"))
    return [*system.data_folder.rglob(job_id), *system.data_folder.rglob(avatar_id), *hidden]


def readable_by_others(folder: Path) -> list[Path]:
    """Returns what in a folder others than its owner may read, write or enter."""
    return [path for path in folder.rglob("*") if path.lstat().st_mode & 0o077]


def steps_of(system: JobSystem, job_id: str) -> list[int]:
    jobs = [job for _, _, job in events(system, job_id)]
    return [job["progress"]["step"] for job in jobs if job["progress"]]
