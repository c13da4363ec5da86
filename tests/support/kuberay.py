"""The fields of KubeRay's `ray.io/v1` that the manifests may use. No package ships its definitions.

What is Kubernetes' own inside them is left to Kubernetes' schemas.
"""

from __future__ import annotations

from typing import Any

TEXT, WHOLE, FLAG = ({"type": kind} for kind in ("string", "integer", "boolean"))
TEXTS = {"type": "object", "additionalProperties": TEXT}


def known(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def core(kind: str) -> dict[str, Any]:
    return {"$ref": f"/api/_definitions.json#/$defs/io.k8s.api.core.v1.{kind}"}


HEAD = known(("template",), rayStartParams=TEXTS, template=core("PodTemplateSpec"))
WORKERS = known(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE, maxReplicas=WHOLE, rayStartParams=TEXTS,
    template=core("PodTemplateSpec"),
)  # fmt: skip
AUTOSCALER = known(
    version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=WHOLE,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    resources=core("ResourceRequirements"), securityContext=core("SecurityContext"),
)  # fmt: skip
CLUSTER = known(
    ("headGroupSpec",),
    rayVersion=TEXT,
    authOptions=known(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
JOB = known(
    clusterSelector=TEXTS, entrypoint=TEXT, runtimeEnvYAML=TEXT, activeDeadlineSeconds=WHOLE,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterPodTemplate=core("PodTemplateSpec"),
)  # fmt: skip
KINDS = {"RayCluster": CLUSTER, "RayJob": JOB}
