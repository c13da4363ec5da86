"""Jobs on a Ray cluster: packed here, submitted, followed; on its nodes, data fetched by hash."""
