"""The service of a site: enrolment, channels, keys, directory, revocation.

    app            listeners, signals            control      commands from the local command line
    routes_keys    the key server's requests     maintenance  what is due in time
    service        every change, and its effect on what runs
    live           a channel as it runs
    channels, enrolment, revocation, directory, keystore, audit: changes as rows, inside one transaction
    site           the folder                    storage, models, migrations, vault: the database
    quantities     what operators type

The modules of the first three lines live on the event loop; those of the others block, and run in the storage
worker or in a command.
"""
