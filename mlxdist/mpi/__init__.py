"""Which MPI: who started this process, where its libmpi lies, and the one that is taken."""
