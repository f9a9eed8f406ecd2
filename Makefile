# What a change has to pass before anybody reads it: `make lint`. `make format` lays the sources out as it wants them.
# Needs the tools of .ci/lint.txt beside the package: pip install -r .ci/lint.txt -e '.[test]'

C_SOURCES := $(wildcard csrc/*.[ch] tests/c/*.[ch] tests/fuzz/*.[ch])

.PHONY: lint format
lint:
	ruff check
	ruff format --check
	mypy
	lint-imports --no-cache
	clang-format --dry-run -Werror $(C_SOURCES)
	codespell

format:
	ruff check --fix
	ruff format
	clang-format -i $(C_SOURCES)
