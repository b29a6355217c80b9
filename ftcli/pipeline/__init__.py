"""The controller: recipes, plans, inputs, running and lineage. Nothing here imports torch."""
