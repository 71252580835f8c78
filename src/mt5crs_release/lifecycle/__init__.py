"""What moves a service from one generation to another, and looks whether that went well."""
