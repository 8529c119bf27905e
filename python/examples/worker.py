"""Sends mails, four at once, until SIGTERM: python worker.py [ADDRESS]"""

import sys

import skerry_jobs


def send(job: skerry_jobs.LeasedJob) -> str:
    address = job.payload.decode()
    if "@" not in address:
        raise skerry_jobs.Final(f"{address!r} is no address")
    print(f"to {address}, attempt {job.attempt}", flush=True)
    return "sent"


address = sys.argv[1] if len(sys.argv) > 1 else "unix:skerry-data/api.sock"
skerry_jobs.Worker(address, "mail", send, concurrency=4).run()
