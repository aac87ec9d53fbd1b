"""The service of a site: enrolment, channels, keys, directory, revocation.

    app            listeners, signals            api          the management API
    routes_keys    the key server's requests     control      that API on this machine; remote: on another
    maintenance    what is due in time
    service        every change                  in_force     what all ask for, and a change's effect on it
    live           a channel as it runs          joins        those of a moment, as one
    channels, settlement, enrolment, admins, revocation, directory, keystore, audit: changes as rows, in one
                   transaction
    site           the folder                    storage, models, migrations, vault: the database
    quantities     what operators type

The modules of the first five lines live on the event loop; those of the others block, and run in the storage
worker or in a command.
"""
