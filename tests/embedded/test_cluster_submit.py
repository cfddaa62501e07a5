"""What becomes of spark-submit's words on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.aws.cluster.submit import Desk, Submission, on_this_machine, translate

HDFS = Path("/c/hdfs")
DESK = Desk(spark_home=Path("/spark"), python="/venv/bin/python", cores=2, folder=Path("/c/1"), hdfs=HDFS)
STEP = [
    *("--master", "yarn", "--deploy-mode", "cluster", "--archives", "s3://assets/e.tar.gz#environment"),
    *("--driver-cores", "1", "--driver-memory", "2g", "--num-executors", "1", "--executor-cores", "6"),
    *("--executor-memory", "6g", "--conf", "spark.driver.memoryOverhead=2g"),
    *("--conf", "spark.executor.memoryOverhead=8g", "--conf", "spark.dynamicAllocation.enabled=false"),
    *("--conf", "spark.pyspark.python=./environment/bin/python", "--conf", "spark.yarn.maxAppAttempts=3"),
    *("--conf", "spark.log.level=WARN", "s3://assets/abc.py"),
    *("--env", "A=1", "--env-base64", "B=e30=", "--checkpoint", "hdfs:///user/hadoop/streams"),
]


def settings(submission: Submission) -> dict[str, str]:
    """Spark's settings; the last of a name counts, as for Spark."""
    words = submission.argv
    return dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--conf")


def left_out(submission: Submission) -> list[str]:
    return [setting for setting, _ in submission.left_out]


def test_a_step_for_yarn_becomes_a_driver_on_this_machine() -> None:
    submission = translate(STEP, DESK)
    assert submission.argv[:3] == ("/spark/bin/spark-submit", "--master", "local[2]")
    assert submission.argv[-7:] == (
        "/c/1/abc.py",
        *("--env", "A=1", "--env-base64", "B=e30=", "--checkpoint", "file:///c/hdfs/user/hadoop/streams"),
    )
    assert settings(submission) == {
        "spark.sql.warehouse.dir": "file:///c/1/warehouse",
        "spark.log.level": "WARN",
        "spark.driver.extraJavaOptions": '"-Djava.io.tmpdir=/c/1/tmp" "-Dderby.system.home=/c/1"',
        "spark.driver.memory": "1024m",
        "spark.pyspark.python": "/venv/bin/python",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }


def test_what_is_left_out_is_told_with_a_reason() -> None:
    submission = translate(STEP, DESK)
    assert sorted(left_out(submission)) == [
        "spark.archives=s3://assets/e.tar.gz#environment",
        "spark.driver.cores=1",
        "spark.driver.memoryOverhead=2g",
        "spark.dynamicAllocation.enabled=false",
        "spark.executor.cores=6",
        "spark.executor.instances=1",
        "spark.executor.memory=6g",
        "spark.executor.memoryOverhead=8g",
        "spark.master=yarn",
        "spark.pyspark.python=./environment/bin/python",
        "spark.submit.deployMode=cluster",
    ]
    assert all(reason for _, reason in submission.left_out)


def test_the_script_is_fetched_and_the_archive_must_be_readable() -> None:
    submission = translate(STEP, DESK)
    assert submission.fetched == {"s3://assets/abc.py": Path("/c/1/abc.py")}
    assert submission.checked == ("s3://assets/e.tar.gz",)


@pytest.mark.parametrize(
    ("words", "attempts"),
    [
        (["--deploy-mode", "cluster", "a.py"], 2),
        (["--deploy-mode=cluster", "a.py"], 2),
        (["--conf", "spark.submit.deployMode=cluster", "a.py"], 2),
        (["--deploy-mode", "cluster", "--conf", "spark.yarn.maxAppAttempts=1", "a.py"], 1),
        (["--deploy-mode", "cluster", "--conf", "spark.yarn.maxAppAttempts=4", "a.py"], 4),
        (["--deploy-mode", "client", "--conf", "spark.yarn.maxAppAttempts=4", "a.py"], 1),
        (["a.py", "--deploy-mode", "cluster"], 1),
    ],
)
def test_yarn_starts_a_driver_again_only_where_it_runs_it(words: list[str], attempts: int) -> None:
    assert translate(words, DESK).attempts == attempts


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("512m", "512m"),
        ("700", "700"),
        ("1g", "1g"),
        ("1024M", "1024M"),
        ("1536m", "1024m"),
        ("12GB", "1024m"),
        ("1t", "1024m"),
        ("900000k", "900000k"),
        ("much", "much"),
    ],
)
def test_the_heap_is_the_asked_one_up_to_a_gibibyte(asked: str, given: str) -> None:
    for words in (["--driver-memory", asked], [f"--driver-memory={asked}"], ["-c", f"spark.driver.memory={asked}"]):
        assert settings(translate([*words, "a.py"], DESK))["spark.driver.memory"] == given


def test_an_option_wins_over_the_setting_that_it_spells() -> None:
    words = ["--driver-memory", "600m", "--conf", "spark.driver.memory=700m", "a.py"]
    assert settings(translate(words, DESK))["spark.driver.memory"] == "600m"


def test_the_applications_own_java_options_are_kept() -> None:
    for words in (["--driver-java-options", "-Da=1 -Db=2"], ["--conf", "spark.driver.extraJavaOptions=-Da=1 -Db=2"]):
        options = settings(translate([*words, "a.py"], DESK))["spark.driver.extraJavaOptions"]
        assert options.endswith(' "-Dderby.system.home=/c/1" -Da=1 -Db=2')


def test_variables_of_the_application_master_are_the_drivers() -> None:
    words = [
        *("--deploy-mode", "cluster", "--conf", "spark.yarn.appMasterEnv.STAGE=a=b"),
        *("--conf", "spark.yarn.appMasterEnv.PYSPARK_PYTHON=python3.11", "--conf", "spark.executorEnv.STAGE=c", "a.py"),
    ]
    submission = translate(words, DESK)
    assert submission.environ["STAGE"] == "a=b"
    assert "PYSPARK_PYTHON" not in submission.environ
    assert settings(submission)["spark.executorEnv.STAGE"] == "c"
    assert "spark.yarn.appMasterEnv.PYSPARK_PYTHON=python3.11" in left_out(submission)


def test_in_client_mode_the_application_master_is_another_process() -> None:
    submission = translate(["--conf", "spark.yarn.appMasterEnv.STAGE=a", "a.py"], DESK)
    assert "STAGE" not in submission.environ
    assert left_out(submission) == ["spark.yarn.appMasterEnv.STAGE=a"]


def test_files_modules_and_jars_come_from_s3() -> None:
    words = [
        *("--files", "s3://b/f/one.txt,s3a://b/two.txt#other.txt", "--py-files", "s3n://b/m.zip,/opt/local.zip"),
        *("--jars", "s3://b/x.jar", "--class", "Main", "s3://b/main.jar", "s3://b/input"),
    ]
    submission = translate(words, DESK)
    given = settings(submission)
    assert given["spark.files"] == "/c/1/one.txt,/c/1/other.txt"
    assert given["spark.submit.pyFiles"] == "/c/1/m.zip,/opt/local.zip"
    assert given["spark.jars"] == "/c/1/x.jar"
    assert submission.argv[-4:] == ("--class", "Main", "/c/1/main.jar", "s3://b/input")
    assert set(submission.fetched) == {
        *("s3://b/f/one.txt", "s3a://b/two.txt", "s3n://b/m.zip", "s3://b/x.jar", "s3://b/main.jar"),
    }


def test_options_that_spark_knows_alone_pass() -> None:
    words = ["--name", "n", "--packages=a:b:c", "--verbose", "--conf", "spark.sql.shuffle.partitions=4", "a.py"]
    submission = translate(words, DESK)
    assert submission.argv[-6:] == ("--name", "n", "--packages", "a:b:c", "--verbose", "a.py")
    assert settings(submission)["spark.sql.shuffle.partitions"] == "4"
    assert submission.left_out == ()


def test_the_programs_own_options_are_never_read_as_sparks() -> None:
    words = ["a.py", "--master", "yarn", "--conf", "spark.executor.cores=4", "--archives", "s3://b/x"]
    submission = translate(words, DESK)
    assert submission.argv[-7:] == tuple(words)
    assert submission.left_out == ()
    assert submission.checked == ()


def test_settings_that_are_not_the_steps_choice_come_last() -> None:
    words = ["--conf", "spark.ui.enabled=true", "--conf", "spark.sql.warehouse.dir=hdfs:///w", "a.py"]
    given = settings(translate(words, DESK))
    assert given["spark.ui.enabled"] == "false"
    assert given["spark.sql.warehouse.dir"] == "file:///c/hdfs/w"


def test_sparks_files_stay_in_the_drivers_folder() -> None:
    environ = translate(["a.py"], DESK).environ
    assert environ["SPARK_LOCAL_DIRS"] == environ["TMPDIR"] == "/c/1/tmp"
    assert environ["SPARK_LOCAL_IP"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("hdfs:///user/hadoop/x", "file:///c/hdfs/user/hadoop/x"),
        ("hdfs:/x", "file:///c/hdfs/x"),
        ("hdfs://ip-10-0-0-1:8020/x", "file:///c/hdfs/x"),
        ("--out=hdfs:///x,hdfs:///y", "--out=file:///c/hdfs/x,file:///c/hdfs/y"),
        ("webhdfs://host/x", "webhdfs://host/x"),
        ("s3://hdfs/x", "s3://hdfs/x"),
        ("/user/hadoop/x", "/user/hadoop/x"),
    ],
)
def test_the_clusters_own_file_system_is_a_folder(word: str, here: str) -> None:
    assert on_this_machine([word], HDFS) == [here]
