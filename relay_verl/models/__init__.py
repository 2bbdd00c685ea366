"""Models by address: folders, hub ids and endpoints; their tokenizers and vocabularies; started in Ray.

`launch` starts every vLLM of ours, students and teachers; `ray_session` starts or joins Ray; `reservation` holds the
teacher's nodes; `routing` picks one of several teachers; `replica_client` asks each `replica` of one, through the
`direct_server` in its process; `replica_watch` looks at how busy they are; `worker_environment` carries the driver's
variables to workers. May import `cpu`, `engines` and the algorithm.
"""
