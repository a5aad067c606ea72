"""Stands in for what Bazel 4 downloads before it builds any py_test, none of which Python needs."""

_NATIVE = {
    "cc": ["binary", "import", "library", "test", "toolchain", "toolchain_suite"],
    "java": ["binary", "import", "library", "package_configuration", "runtime", "toolchain"],
}

def _stand_in(repository):
    repository.file("BUILD", """filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)""")
    for language, rules in _NATIVE.items():
        names = ["%s_%s" % (language, rule) for rule in rules]
        repository.file(language + "/BUILD")
        repository.file(
            language + "/defs.bzl",
            "\n".join(["%s = native.%s" % (name, name) for name in names]),
        )

stand_in = repository_rule(_stand_in)
