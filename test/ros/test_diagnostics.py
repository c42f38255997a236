"""The node's counters."""

from __future__ import annotations

from kdc_ros.diagnostics import Monitor


def test_latencies_by_another_clock_are_not_counted() -> None:
    monitor = Monitor()
    for latency_s in (-1.0, 1e9):
        monitor.got_result(1, latency_s, 5.0, 1.0)
    values = monitor.values()
    assert values["latency_ms_p50"] == values["latency_ms_p95"] == "n/a"
    assert (values["frames"], values["model_ms_p50"]) == ("2", "5.0")
    monitor.got_result(1, 0.020, 5.0, 1.0)
    assert monitor.values()["latency_ms_p50"] == "20.0"
    monitor.got_result(1, -0.050, 5.0, 1.0)
    assert monitor.values()["latency_ms_p50"] == "n/a", "the clocks disagree by now"


def test_rates_are_those_since_the_last_look() -> None:
    monitor = Monitor()
    monitor.rates(10.0)
    for _ in range(6):
        monitor.got_image(10.5)
    monitor.got_result(0, 0.01, 5.0, 1.0)
    assert monitor.rates(12.0) == (3.0, 0.5)
    assert monitor.rates(12.1) == (3.0, 0.5), "too soon to tell anew"


def test_an_image_ends_what_was_lost_before_it() -> None:
    monitor = Monitor()
    monitor.got_lost(3, 0.5)
    assert monitor.lost_since_input == 3
    monitor.got_image(1.0)
    assert (monitor.lost, monitor.lost_since_input) == (3, 0)


def test_more_than_a_fifth_lost_within_ten_seconds_is_told() -> None:
    monitor = Monitor()
    for number in range(80):
        monitor.got_image(100 + number / 10)
    monitor.got_lost(20, 108.0)
    assert monitor.losses(108.0, "/image") == "", "a fifth"
    monitor.got_lost(1, 108.0)
    text = monitor.losses(108.0, "/image")
    assert text.startswith("21 of 101 images on /image were lost by the middleware within 10 s")
    assert monitor.losses(119.0, "/image") == "", "it is over"
    monitor.got_lost(5, 120.0)
    assert "5 of 5" in monitor.losses(120.0, "/image"), "a complete loss"
    monitor.activated(121.0)
    assert monitor.losses(121.0, "/image") == ""


def test_people_who_come_late_three_times_in_a_row_are_told() -> None:
    monitor = Monitor()
    for latency_s in (1.5, 0.5, 1.2, 1.3):
        monitor.got_result(1, latency_s, 5.0, 1.0)
        assert monitor.behind() == ""
    monitor.got_result(1, 2.25, 5.0, 1.0)
    assert "people come 2.2 s after their images' stamps" in monitor.behind()
    monitor.got_result(1, 0.9, 5.0, 1.0)
    assert monitor.behind() == ""


def test_a_frame_that_does_not_end_is_told() -> None:
    monitor = Monitor()
    monitor.began(10.0)
    monitor.began(12.0)
    assert monitor.stalled(15.0, 5.0) == ""
    assert monitor.stalled(16.0, 5.0) == "a frame has been in work for 6 s"
    monitor.ended(10.0)
    assert monitor.stalled(16.0, 5.0) == "", "the second has been in work for 4 s"
    monitor.ended(12.0)
    assert monitor.stalled(99.0, 5.0) == ""


def test_a_silence_is_told_with_its_cause() -> None:
    monitor = Monitor()
    monitor.activated(10.0)
    assert monitor.silence(12.0, 2.0, "/image", 0) == ""
    assert monitor.silence(12.5, 2.0, "/image", 0) == "no publisher on /image"
    assert monitor.silence(13.0, 2.0, "/image", 1) == "no images on /image for 3 s"
    assert monitor.silence(99.0, 0.0, "/image", 0) == "", "0 = never"
    monitor.got_lost(1, 12.9)
    assert "lost by the middleware" in monitor.silence(13.0, 2.0, "/image", 1)
    monitor.got_image(13.0)
    assert monitor.silence(15.0, 2.0, "/image", 1) == ""
    monitor.activated(20.0)
    assert monitor.silence(21.0, 2.0, "/image", 1) == "", "the wait begins anew"


def test_no_usable_image_for_a_while_is_told_with_the_last_cause() -> None:
    monitor = Monitor()
    monitor.activated(10.0)
    assert monitor.none_usable(99.0, 2.0, "/image") == "", "none came"
    monitor.got_bad_frame("one cause", 20.0)
    monitor.got_bad_frame("another", 21.0)
    assert monitor.none_usable(22.0, 2.0, "/image") == ""
    text = "no image on /image could be used for 3 s: another"
    assert monitor.none_usable(22.6, 2.0, "/image") == text
    assert monitor.none_usable(99.0, 0.0, "/image") == "", "0 = never"
    monitor.got_fault("of the model, not of the image")
    assert monitor.none_usable(99.0, 2.0, "/image") == ""
    monitor.got_bad_frame("again", 99.0)
    assert monitor.none_usable(110.0, 2.0, "/image") == "", "one says nothing of the next"
    monitor.got_bad_frame("and again", 111.0)
    assert monitor.none_usable(112.0, 2.0, "/image") != ""
    monitor.activated(120.0)
    assert monitor.none_usable(121.0, 2.0, "/image") == "", "the wait begins anew"


def test_more_than_a_fifth_of_the_last_hundred_unusable_is_told() -> None:
    monitor = Monitor()
    for number in range(100):
        if number % 5:
            monitor.got_result(0, 0.01, 5.0, 1.0)
        else:
            monitor.got_bad_frame(f"frame {number}", float(number))
    assert monitor.some_unusable("/image") == "", "a fifth"
    monitor.got_bad_frame("one more", 100.0)  # in place of the first, which was bad
    assert monitor.some_unusable("/image") == ""
    monitor.got_bad_frame("too many", 101.0)
    assert monitor.some_unusable("/image") == (
        "21 of the last 100 images on /image could not be used, the last: too many"
    )
    for _ in range(100):
        monitor.got_result(0, 0.01, 5.0, 1.0)
    assert monitor.some_unusable("/image") == ""


def test_a_good_frame_ends_a_row_of_faults() -> None:
    monitor = Monitor()
    monitor.got_fault("one")
    monitor.got_fault("two")
    assert monitor.faults_in_a_row == 2
    monitor.got_result(0, 0.01, 5.0, 1.0)
    assert (monitor.faults_in_a_row, monitor.faults) == (0, 2)
    assert monitor.values()["last_error"] == "two"
