from keras_dsd.utils.files import replace


def test_two_that_write_a_file_at_once_do_not_take_each_others(tmp_path):
    path = tmp_path / "history.json"

    def write(file):
        file.write(b"one")
        replace(path, lambda other: other.write(b"another's"))
        assert path.read_bytes() == b"another's"
        file.write(b", to its end")

    replace(path, write)
    assert path.read_bytes() == b"one, to its end"
    assert list(tmp_path.iterdir()) == [path]
