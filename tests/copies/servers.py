"""Real stores as child processes: moto's S3 server, and `rclone serve s3`."""

import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from service.copies.rclone_store import program_of

ACCESS, SECRET = "stillpoint-access", "stillpoint-secret"
STARTED = re.compile(rb"Starting s3 server on \[(http://[0-9.:]+)/\]")
KEY = f"access_key_id = {ACCESS}\nsecret_access_key = {SECRET}\n".encode()


@dataclass(frozen=True)
class S3Server:
    endpoint: str

    def client(self) -> Any:
        keys = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)

    def bucket(self, *, has_lock: bool = False) -> str:
        name = f"bucket-{uuid.uuid4()}"
        self.client().create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if has_lock else {}))
        return name

    def target(self, *, has_lock: bool = False) -> dict[str, Any]:
        return {"kind": "s3", "bucket": self.bucket(has_lock=has_lock), "prefix": "copies/one", "endpoint": self.endpoint}


@contextmanager
def moto(*words: str) -> Iterator[S3Server]:
    command = [sys.executable, "-m", "tests.copies.s3_server", *words]
    with _running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield S3Server(f"http://127.0.0.1:{int(process.stdout.readline())}")


@contextmanager
def rclone_serve_s3(folder: Path) -> Iterator[S3Server]:
    """It keeps objects as files below the folder, shows the locks that it is told, and keeps none of them."""
    command = [program_of("a test"), "serve", "s3", str(folder), "--addr", "127.0.0.1:0", "--auth-key", f"{ACCESS},{SECRET}"]
    with _running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while (said := STARTED.search(line := process.stderr.readline())) is None:
            assert line, "rclone has ended"
        # A pipe that nobody reads would fill up.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield S3Server(said.group(1).decode())


@contextmanager
def _running(command: list[str], **pipes: int) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(__file__).parents[2])
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **pipes}
    with subprocess.Popen(command, cwd=root, env={**os.environ, "RCLONE_CONFIG": "/dev/null"}, **quiet) as process:  # type: ignore[call-overload] # pipes by name
        try:
            yield process
        finally:
            process.kill()
