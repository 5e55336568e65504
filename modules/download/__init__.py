"""Published models from the hub into the model folders, when somebody asks for them and at no other time."""
