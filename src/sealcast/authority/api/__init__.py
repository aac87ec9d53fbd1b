"""The management API: JSON over HTTPS for admins, over a local socket for the machine's owner.

    table          every request that there is, from the files in resources/
    routing        what a request must say about itself; finding it
    listener       HTTP: who asks, bounds, answers      openapi    the document, from the same table
    handling       one request inside one transaction: role, preconditions, idempotency, audit
    callers        who asks, in which role              problems   refusals, one table
    schema         JSON Schema: what a body and a parameter may be

A resource is one file in resources/: its schemas, its handlers, its rows of the table. Handlers block, know
no HTTP, and run alike in the service and in a command that finds no service running.
"""
