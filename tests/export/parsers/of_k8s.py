"""Kubernetes: the schemas of its API, as the package kubernetes-validate has them; strict: no unknown field."""

from __future__ import annotations

import yaml
from answer import Accept, main


def load() -> tuple[str, Accept]:
    import kubernetes_validate

    version = kubernetes_validate.latest_version()

    def accept(words: list[str], ranks: int) -> None:
        (text,) = words
        service, job = yaml.safe_load_all(text)
        for document in (service, job):
            kubernetes_validate.validate(document, version, strict=True)

    return version, accept


main(load)
