// The people in messages of the kdc node, read from their bytes. C++17, nothing of ROS: hand over
// the fields of the message. For little-endian processors, as all that ROS 2 runs on are.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace kdc
{

// A cell of the table on ~/keypoints, as it lies in the message.
struct Keypoint
{
  float u;             // pixels of the image; the center of its top-left pixel is (0, 0)
  float v;             // both are NaN where the keypoint is not visible
  float score;         // 0 to 1
  std::uint16_t id;    // of the person, from 1 on; the same in every output of an image
  std::uint8_t kp;     // 0 to 16, in the order of KEYPOINTS
  std::uint8_t visible;  // 1 or 0
};
static_assert(sizeof(Keypoint) == 16, "the table's cells are packed");

// Left and right are the person's own.
constexpr const char * KEYPOINTS[] = {
  "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
  "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
  "right_knee", "left_ankle", "right_ankle"};

using Person = std::vector<Keypoint>;  // a row of the table

// The table of a PointCloud2 on ~/keypoints: a row per person, none for an image without people.
// Throws std::invalid_argument where the message is no such table.
inline std::vector<Person> read_keypoints(
  const std::vector<std::uint8_t> & data, std::uint32_t height, std::uint32_t width,
  std::uint32_t point_step)
{
  const std::size_t row = std::size_t{width} * sizeof(Keypoint);
  if (point_step != sizeof(Keypoint) || data.size() != height * row) {
    throw std::invalid_argument("not a table of ~/keypoints: expected 16 bytes a keypoint");
  }
  std::vector<Person> people(height, Person(width));
  for (std::size_t i = 0; i < people.size() && row > 0; ++i) {
    std::memcpy(people[i].data(), data.data() + i * row, row);
  }
  return people;
}

// The ids of an Image on ~/labels, row after row: pixel (x, y) is [y * width + x], 0 is nobody.
// Throws std::invalid_argument where the message holds fewer bytes.
inline std::vector<std::uint16_t> read_labels(
  const std::vector<std::uint8_t> & data, std::uint32_t height, std::uint32_t width,
  std::uint32_t step)
{
  const std::size_t row = std::size_t{width} * sizeof(std::uint16_t);
  if (step < row || data.size() < std::size_t{height} * step) {
    throw std::invalid_argument("not an image of ~/labels: expected 2 bytes a pixel");
  }
  std::vector<std::uint16_t> labels(std::size_t{height} * width);
  for (std::size_t y = 0; y < height && row > 0; ++y) {
    std::memcpy(labels.data() + y * width, data.data() + y * step, row);
  }
  return labels;
}

}  // namespace kdc
