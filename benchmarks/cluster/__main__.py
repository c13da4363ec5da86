"""`python -m benchmarks.cluster [NAME]`: all measurements on a cluster, or one. Nodes need root and `ip`."""

from benchmarks.common import measure

measure("benchmarks.cluster")
