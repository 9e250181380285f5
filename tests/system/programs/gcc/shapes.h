// SPDX-License-Identifier: BSD-2-Clause
// What the two sources of a C++ program share.
#ifndef SHAPES_H
#define SHAPES_H

#include <memory>
#include <stdexcept>
#include <string>

class shape
{
  public:
    virtual ~shape();
    virtual double area() const = 0;
    std::string name;

  protected:
    explicit shape(std::string name) : name(std::move(name))
    {
    }
};

class no_shape : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

std::unique_ptr<shape>
make_shape(const std::string &words);  // "circle 2", "box 3 4"; or throws no_shape

#endif
