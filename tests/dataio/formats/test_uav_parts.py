"""Projects of several parts: each in its own place, with its own lens, or said in a line."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from dataio import normalize
from dataio.formats.metashape import MetashapeData
from dataio.formats.opendronemap import OpenDroneMapData
from tests.dataio.formats import test_uav
from tests.support import made_data


def components(folder: Path, placed: tuple[bool, ...]) -> list[int]:
    """Cameras of two components, in frames of their own that are turned and scaled; returns those of the second."""
    file = test_uav.metashape(folder) / "cameras.xml"
    text = file.read_text("utf-8")
    begin, end = text.index("<transform><rotation>"), text.index("</chunk>")
    place, second = text[begin:end], [1, 4, 6]
    whole = MetashapeData(path=str(folder)).parse()
    assert whole.georeference is not None
    other = np.eye(4)
    other[:3, :3] = 3.0 * test_uav.Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix()
    other[:3, 3] = [5.0, -2.0, 1.0]
    root = ElementTree.fromstring(text)
    chunk = root.find("chunk")
    assert chunk is not None
    for camera in chunk.iter("camera"):
        number = int(camera.get("id", ""))
        camera.set("component_id", "1" if number in second else "0")
        pose = camera.find("transform")
        if number in second and pose is not None:
            old = np.array((pose.text or "").split(), dtype=float).reshape(4, 4)
            pose.text = " ".join(map(repr, normalize.moved(old[None], other)[0].ravel().tolist()))
    for old_place in chunk.findall("transform"):
        chunk.remove(old_place)
    listed = ["", ""]
    for number, where in enumerate((np.eye(4), normalize.inverse(other))):
        listed[number] = f'<component id="{number}">{moved_place(place, where) if placed[number] else ""}</component>'
    parts = ElementTree.fromstring(f"<components>{''.join(listed)}</components>")
    chunk.append(parts)
    file.write_text(ElementTree.tostring(root, encoding="unicode"), "utf-8")
    return second


def moved_place(place: str, first: np.ndarray) -> str:
    """A <transform> after another similarity [4, 4]."""
    element = ElementTree.fromstring(place)
    numbers = {key: np.array(element.findtext(key, "").split(), dtype=float) for key in ("rotation", "translation")}
    matrix = np.eye(4)
    matrix[:3, :3] = numbers["rotation"].reshape(3, 3) * float(element.findtext("scale", "1"))
    matrix[:3, 3] = numbers["translation"]
    matrix = matrix @ first
    scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
    turn, shift = (" ".join(map(repr, part.ravel().tolist())) for part in (matrix[:3, :3] / scale, matrix[:3, 3]))
    return f"<transform><rotation>{turn}</rotation><translation>{shift}</translation><scale>{scale}</scale></transform>"


def test_metashape_components_have_each_its_own_place(tmp_path):
    whole = MetashapeData(path=str(test_uav.metashape(tmp_path))).parse()
    components(tmp_path, (True, True))
    views = MetashapeData(path=str(tmp_path)).parse()
    assert views.names == whole.names and views.georeference is not None and whole.georeference is not None
    np.testing.assert_allclose(views.camera_to_world, whole.camera_to_world, atol=1e-6)


def test_a_metashape_component_without_a_place_is_left_out_with_a_line(tmp_path, capsys):
    whole = MetashapeData(path=str(test_uav.metashape(tmp_path))).parse()
    second = components(tmp_path, (True, False))
    views = MetashapeData(path=str(tmp_path)).parse()
    assert views.names == [name for view, name in enumerate(whole.names) if view not in second]
    assert "2 components with 5, 3 cameras" in capsys.readouterr().err


def test_slaves_of_a_metashape_rig_are_said(tmp_path, capsys):
    file = test_uav.metashape(tmp_path) / "cameras.xml"
    text = file.read_text("utf-8").replace("id='99'", "id='99' master_id='0'")
    file.write_text(text, "utf-8")
    assert len(MetashapeData(path=str(tmp_path)).parse().names) == test_uav.COUNT
    assert "1 cameras of a rig have no transform of their own" in capsys.readouterr().err


def test_what_a_metashape_lens_leaves_out_is_said_once(tmp_path, capsys):
    file = test_uav.metashape(tmp_path) / "cameras.xml"
    file.write_text(file.read_text("utf-8").replace("<k1>", "<k4>0.1</k4><k1>"), "utf-8")
    MetashapeData(path=str(tmp_path)).parse()
    assert capsys.readouterr().err.count("k4 is left out") == 1


def shots_file(folder: Path, **more) -> OpenDroneMapData:
    features = []
    for view, pose in enumerate(made_data.ring_poses(8)):
        place = test_uav.ORIGIN.geodetic(100 * pose[None, :3, 3])[0]
        grid = test_uav.utm_of(place[0], place[1])
        turn = test_uav.Rotation.from_matrix(pose[:3, :3].T).as_rotvec().tolist()
        properties = {"filename": f"{view:03d}.png", "focal": test_uav.FOCAL[0] / test_uav.SIDE,
                      "width": made_data.WIDTH, "height": made_data.HEIGHT,
                      "translation": [grid.easting, grid.northing, place[2]], "rotation": turn, **more}  # fmt: skip
        features.append({"properties": properties, "geometry": {"coordinates": [place[1], place[0], place[2]]}})
    test_uav.pictures(folder)
    (folder / "shots.geojson").write_text(json.dumps({"features": features}))
    return OpenDroneMapData(path=str(folder))


def test_shots_have_the_lens_that_they_name(tmp_path, capsys):
    data = shots_file(tmp_path, camera="b")
    lenses = {name: {**test_uav.CAMERA, "k1": k1} for name, k1 in (("a", 0.01), ("b", 0.02))}
    (tmp_path / "cameras.json").write_text(json.dumps(lenses))
    distortion = data.parse().distortion
    assert distortion is not None and set(distortion[:, 0]) == {0.02} and not capsys.readouterr().err
    (tmp_path / "cameras.json").unlink()
    distortion = data.parse().distortion
    assert distortion is not None and not distortion.any()
    assert "8 of 8 photographs have no lens in cameras.json: read as undistorted" in capsys.readouterr().err
