"""What a team runs on one machine: servers for runs, flows and jobs, and the supervisor that keeps them running."""
