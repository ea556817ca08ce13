"""Archives that other tools would have made, and layers taken out of ours."""

import hashlib
import io
import json
import shutil
import tarfile


def digest_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def foreign_archive(layer, title, media_type, output):
    """An image layout in a tar with one layer that knows nothing of chunk tables."""
    documents = {}

    def blob(value, kind):
        data = json.dumps(value).encode()
        name = hashlib.sha256(data).hexdigest()
        documents[f"blobs/sha256/{name}"] = data
        return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}

    config = blob({}, "application/vnd.oci.empty.v1+json")
    name = digest_file(layer)
    manifest = blob({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.unknown.artifact.v1",
        "config": config,
        "layers": [{
            "mediaType": media_type, "digest": f"sha256:{name}", "size": layer.stat().st_size,
            "annotations": {"org.opencontainers.image.title": title},
        }],
    }, "application/vnd.oci.image.manifest.v1+json")
    documents["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    documents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    with tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(layer, f"blobs/sha256/{name}")
        for path, data in documents.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def largest_layer(archive, output):
    """Copies the largest blob of an archive out of it."""
    with tarfile.open(archive) as file:
        member = max(file.getmembers(), key=lambda member: member.size)
        with file.extractfile(member) as source, open(output, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
