// SPDX-License-Identifier: BSD-2-Clause
#include "shapes.h"

#include <numbers>
#include <sstream>

shape::~shape() = default;

namespace {

class circle : public shape {
  public:
    explicit circle(double radius) : shape("circle"), radius(radius) {}
    double area() const override { return std::numbers::pi * radius * radius; }

  private:
    double radius;
};

class box : public shape {
  public:
    box(double width, double height) : shape("box"), width(width), height(height) {}
    double area() const override { return width * height; }

  private:
    double width, height;
};

}  // namespace

std::unique_ptr<shape> make_shape(const std::string &words)
{
    std::istringstream stream(words);
    std::string name;
    double a = 0, b = 0;
    stream >> name >> a >> b;
    if (name == "circle")
        return std::make_unique<circle>(a);
    if (name == "box")
        return std::make_unique<box>(a, b);
    throw no_shape("no shape: " + words);
}
