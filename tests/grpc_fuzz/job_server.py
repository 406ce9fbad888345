"""A job server on grpcio that conforms to its contract, except for one bug at a time."""

import hashlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

from tests.grpc_fuzz.contracts import jobs_schema

SERVICE = "jobs.v1.Jobs"
SIZES = ("unspecified", "small", "large")


class JobServer:
    """The job service.

    Args:
        bug: One of the bugs that the methods name; None for no bug.
    """

    def __init__(self, bug: str | None = None) -> None:
        self._bug = bug
        self._schema = jobs_schema()
        self._lock = threading.Lock()
        # Any: message classes are built at run time.
        self._jobs: dict[str, Any] = {}
        self._dropped: dict[str, Any] = {}
        self._calls: dict[str, int] = {}
        self.waiting = threading.Event()

    def handlers(self) -> Any:
        """Return the methods for grpcio."""
        kinds = {
            "Make": (grpc.unary_unary_rpc_method_handler, self.make),
            "Drop": (grpc.unary_unary_rpc_method_handler, self.drop),
            "Upload": (grpc.stream_unary_rpc_method_handler, self.upload),
            "Chat": (grpc.stream_stream_rpc_method_handler, self.chat),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: kind(
                    behaviour,
                    request_deserializer=self._type(name, "input").FromString,
                    response_serializer=lambda message: message.SerializeToString(),
                )
                for name, (kind, behaviour) in kinds.items()
            },
        )

    def make(self, job: Any, context: Any) -> Any:
        self._check(job, context)
        if self._bug == "always_hangs" or (self._bug == "hangs" and job.title):
            self.waiting.wait()
        if self._bug == "words_each_failure_differently" and job.title:
            raise ValueError(
                f"cannot make {job.title} of size {job.size} ({job.part.at.seconds}):"
                f" {uuid.uuid4()}, see {[*job.sizes]} and {job.text!r}"
            )
        answer = type(job)()
        answer.CopyFrom(job)
        content = job.SerializeToString(deterministic=True)
        answer.id = hashlib.sha256(content).hexdigest()
        with self._lock:
            self._jobs.setdefault(answer.id, answer)
            self._calls[answer.id] = self._calls.get(answer.id, 0) + 1
            if self._bug == "differs_the_second_time" and self._calls[answer.id] == 2:
                return type(job)(title="another")
        if self._bug == "makes_up_a_size":
            answer.by_name["x"].size = 99
        return answer

    def drop(self, request: Any, context: Any) -> Any:
        """Remove a job. A retry gets the same answer."""
        with self._lock:
            found = self._jobs.pop(request.job_id, None)
            if found is not None:
                self._dropped[request.job_id] = found
            elif self._bug != "forgets_what_it_dropped":
                found = self._dropped.get(request.job_id)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such job")
        return found

    def upload(self, jobs: Iterator[Any], context: Any) -> Any:
        count = 0
        for job in jobs:
            self._check(job, context)
            count += 1
            if self._bug == "fails_at_the_second_message" and count == 2:
                raise RuntimeError("out of order")
        if self._bug == "fails_without_messages" and not count:
            raise RuntimeError("there is no first message")
        return self._type("Upload", "output")(jobs=count)

    def chat(self, jobs: Iterator[Any], context: Any) -> Iterator[Any]:
        for job in jobs:
            self._check(job, context)
            yield job

    def _check(self, job: Any, context: Any) -> None:
        parts = [job.part, job.maybe, *job.parts, *job.by_name.values()]
        if self._bug == "fails_on_unknown_sizes":
            for part in parts:
                SIZES[part.size]
        if self._bug == "fails_on_times_out_of_range":
            for part in parts:
                part.at.ToJsonString()
        takes = self._bug == "takes_times_out_of_range"
        try:
            for part in parts:
                if not takes:
                    part.at.ToJsonString()
            job.due.ToJsonString()
            if self._bug != "takes_durations_out_of_range":
                job.lasting.ToJsonString()
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _type(self, name: str, side: str) -> Any:
        method = self._schema.method(f"/{SERVICE}/{name}")
        return self._schema.message_class(getattr(method, side))


@contextmanager
def running_job_server(bug: str | None = None) -> Iterator[int]:
    """Serve the job service, and yield its port."""
    job_server = JobServer(bug)
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((job_server.handlers(),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        job_server.waiting.set()
        server.stop(None).wait()
