"""Which MPI: what launched this process, where a libmpi is installed, and which one is taken."""
