"""`whet schema`."""

from whet.cli.options import verb


@verb("schema")
def command(**_: object) -> None:
    """Print the JSON Schema of recipes.

    Editors complete and check recipes with it: put `# yaml-language-server: $schema=whet.json` on
    the first line of a recipe.
    """
    from whet import api
    from whet.cli import output

    output.result_json(api.schema())
