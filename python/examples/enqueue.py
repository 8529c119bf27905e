"""Has mails sent, and waits until they are: python enqueue.py [ADDRESS]"""

import sys

from skerry_jobs import Client, JobSpec, Rate

address = sys.argv[1] if len(sys.argv) > 1 else "unix:skerry-data/api.sock"
with Client(address) as client:
    # Ids of one's own: asked again after an error, nothing is enqueued twice.
    people = ["ada@example.org", "grace@example.org", "nobody"]
    smtp = Rate("smtp", 10, per=1.0)
    specs = [JobSpec(person, id=f"welcome/{person}", group="mail", limits=[smtp]) for person in people]
    for enqueued in client.enqueue_many(specs):
        print(enqueued.id, "is new" if enqueued.is_new else "was there")
    for awaited in client.await_jobs([spec.id for spec in specs], timeout=60):
        print(awaited.id, awaited.job.state.value, awaited.job.result)
