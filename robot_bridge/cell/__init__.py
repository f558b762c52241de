"""The processes of a physical cell: arm, safety and cameras apart from the collector, so that each may die alone."""
