"""All settings of the product, one module per part; `schema` has the mechanism."""
