// Prints the people that a running kdc node publishes: their ids, visible keypoints and pixels.
//
//   cp -r examples/cpp ~/ws/src/kdc_people_listener
//   cd ~/ws && colcon build --packages-select kdc_people_listener && source install/setup.bash
//   ros2 run kdc_people_listener people_listener

#include <algorithm>
#include <memory>
#include <stdexcept>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>

#include "kdc_people.hpp"

using sensor_msgs::msg::Image;
using sensor_msgs::msg::PointCloud2;

class PeopleListener : public rclcpp::Node
{
public:
  PeopleListener()
  : Node("people_listener")
  {
    // Relative, so that a namespace or remapping moves them: -r __ns:=/robot
    keypoints_subscription_ = create_subscription<PointCloud2>(
      "kdc/keypoints", rclcpp::QoS(5),
      [this](PointCloud2::ConstSharedPtr message) {keypoints_ = message; tell();});
    labels_subscription_ = create_subscription<Image>(
      "kdc/labels", rclcpp::QoS(5),
      [this](Image::ConstSharedPtr message) {labels_ = message; tell();});
  }

private:
  // All outputs of an image carry its stamp: tell of it when both are there.
  void tell()
  {
    if (!keypoints_ || !labels_ || keypoints_->header.stamp != labels_->header.stamp) {
      return;
    }
    try {
      const auto people = kdc::read_keypoints(
        keypoints_->data, keypoints_->height, keypoints_->width, keypoints_->point_step);
      const auto labels = kdc::read_labels(
        labels_->data, labels_->height, labels_->width, labels_->step);
      RCLCPP_INFO(get_logger(), "%zu people", people.size());
      for (const auto & person : people) {
        const auto visible = std::count_if(
          person.begin(), person.end(), [](const auto & keypoint) {return keypoint.visible == 1;});
        const auto id = person.front().id;
        const auto pixels = std::count(labels.begin(), labels.end(), id);
        RCLCPP_INFO(
          get_logger(), "  person %d: %d keypoints, %d pixels, nose (%.0f, %.0f)", int(id),
          int(visible), int(pixels), person.front().u, person.front().v);
      }
    } catch (const std::invalid_argument & error) {
      RCLCPP_WARN(get_logger(), "%s", error.what());
    }
  }

  PointCloud2::ConstSharedPtr keypoints_;
  Image::ConstSharedPtr labels_;
  rclcpp::Subscription<PointCloud2>::SharedPtr keypoints_subscription_;
  rclcpp::Subscription<Image>::SharedPtr labels_subscription_;
};

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<PeopleListener>());
  rclcpp::shutdown();
}
