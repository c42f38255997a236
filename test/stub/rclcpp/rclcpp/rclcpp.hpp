// Of rclcpp as much as examples/cpp uses, to check its syntax and its use of the messages.

#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#define RCLCPP_INFO(logger, ...) (static_cast<void>(logger), std::printf(__VA_ARGS__))
#define RCLCPP_WARN(logger, ...) RCLCPP_INFO(logger, __VA_ARGS__)

namespace rclcpp
{

struct Logger {};

struct QoS
{
  explicit QoS(std::size_t depth);
};

template<typename Message>
struct Subscription
{
  using SharedPtr = std::shared_ptr<Subscription>;
};

struct Node
{
  explicit Node(const std::string & name);
  Logger get_logger() const;
  template<typename Message>
  std::shared_ptr<Subscription<Message>> create_subscription(
    const std::string & topic, const QoS & qos,
    std::function<void(typename Message::ConstSharedPtr)> callback);
};

void init(int argc, char ** argv);
void spin(std::shared_ptr<Node> node);
void shutdown();

}  // namespace rclcpp
