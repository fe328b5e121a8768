"""For every test: nothing calls home."""

from workbook.environment import go_offline

# At import, before any test module imports litellm, which would fetch its price map.
go_offline()
