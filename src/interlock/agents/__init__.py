"""Who proposes: agents built from their definitions, their models and toolsets."""
