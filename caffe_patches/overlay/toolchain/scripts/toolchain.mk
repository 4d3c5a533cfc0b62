# What Makefile.config, or a copy of its example, leaves unsaid about today's
# libraries. Whatever it sets and is there stays as it is.

comma := ,

# OpenCV 3 and newer read images with opencv_imgcodecs; Makefile asks for a 3.
ifneq ($(OPENCV_VERSION), 2)
  override OPENCV_VERSION := 3
endif

# protobuf 22, CUDA 13 and Boost want C++17; Caffe's sources are not C++20.
ifeq ($(findstring -std=,$(CXX) $(CUSTOM_CXX) $(CXXFLAGS) $(COMMON_FLAGS)),)
  COMMON_FLAGS += -std=c++17
endif

# Folders that packages keep to themselves.
TOOLCHAIN_CXX := $(if $(CUSTOM_CXX),$(CUSTOM_CXX),$(CXX))
TOOLCHAIN_ARCH := $(shell $(TOOLCHAIN_CXX) -print-multiarch 2>/dev/null)
INCLUDE_DIRS += $(wildcard /usr/include/opencv4 /usr/include/hdf5/serial)
LIBRARY_DIRS += $(wildcard /usr/lib/$(TOOLCHAIN_ARCH)/hdf5/serial)
COMMON_FLAGS += $(filter -I% -D%,\
  $(shell pkg-config --cflags protobuf libglog 2>/dev/null))

# From 22 on, protobuf's headers call into Abseil, which has to be linked too.
LDFLAGS += $(filter -L% -labsl%,\
  $(shell pkg-config --libs protobuf 2>/dev/null))

# From 1.89 on, boost_system is headers alone.
TOOLCHAIN_BOOST := $(shell echo BOOST_VERSION | $(TOOLCHAIN_CXX) \
  $(INCLUDE_DIRS:%=-I%) -include boost/version.hpp -E -P -x c++ - \
  2>/dev/null | tail -n 1)
TOOLCHAIN_GONE := $(shell \
  [ "$(TOOLCHAIN_BOOST)" -ge 108900 ] 2>/dev/null && echo boost_system)

# The Python that is there, where PYTHON_INCLUDE leads to no Python.h. NumPy
# comes first: Debian has one of its own beside Python.h.
PYTHON ?= python3
ifeq ($(wildcard $(PYTHON_INCLUDE:%=%/Python.h)),)
  PYTHON_VERSION := $(shell $(PYTHON) -c \
    'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
  PYTHON_LIBRARIES ?= \
    boost_python$(subst .,,$(PYTHON_VERSION)) python$(PYTHON_VERSION)
  INCLUDE_DIRS += $(shell $(PYTHON) -c 'import sysconfig, numpy; \
    print(numpy.get_include(), sysconfig.get_paths()["include"])' 2>/dev/null)
  LIBRARY_DIRS += $(shell $(PYTHON) -c 'import sysconfig; \
    print(sysconfig.get_config_var("LIBDIR"))' 2>/dev/null)
endif

# All architectures that nvcc lists, and code of the last for those to come,
# where CUDA_ARCH asks for one that nvcc has dropped.
ifneq ($(CPU_ONLY), 1)
  NVCC_ARCHS := $(shell $(CUDA_DIR)/bin/nvcc --list-gpu-arch 2>/dev/null)
  ASKED_ARCHS := $(patsubst arch=%,%,$(filter arch=%,\
    $(subst $(comma), ,$(CUDA_ARCH))))
  ifneq ($(and $(NVCC_ARCHS),$(filter-out $(NVCC_ARCHS),$(ASKED_ARCHS))),)
    CUDA_ARCH := $(foreach arch,$(NVCC_ARCHS),\
      -gencode arch=$(arch)$(comma)code=$(arch:compute_%=sm_%)) \
      -gencode arch=$(lastword $(NVCC_ARCHS))$(comma)code=$(lastword $(NVCC_ARCHS))
  endif
endif
