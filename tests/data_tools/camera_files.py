"""Texts of calibrations, as the programs of camera makers print and write them."""

ROWS = "525 0 319.5 0\n0 525 239.5 0\n0 0 1 0\n0 0 0 1\n"

# What `rs-enumerate-devices -c` prints: intrinsics of all streams, then extrinsics between all.
REALSENSE = """Device info:
    Name                          :     Intel RealSense D435

 Intrinsic of "Depth" / 848x480 / {Z16}
  Width:      \t848
  Height:     \t480
  PPX:        \t425.120849609375
  PPY:        \t235.450637817383
  Fx:         \t422.806274414062
  Fy:         \t422.806274414062
  Distortion: \tBrown Conrady
  Coeffs:     \t0  \t0  \t0  \t0  \t0
  FOV (deg):  \t90.17 x 59.16

 Intrinsic of "Color" / 640x480 / {YUYV/RGB8/BGR8}
  Width:      \t640
  Height:     \t480
  PPX:        \t314.25
  PPY:        \t237.75
  Fx:         \t612.5
  Fy:         \t610.5
  Distortion: \tInverse Brown Conrady
  Coeffs:     \t-0.05  \t0.06  \t-0.001  \t7e-05  \t-0.02
  FOV (deg):  \t55.2 x 42.9

 Intrinsic of "Color" / 1280x720 / {YUYV/RGB8/BGR8}
  Width:      \t1280
  Height:     \t720
  PPX:        \t631.25
  PPY:        \t356.75
  Fx:         \t918.5
  Fy:         \t916
  Distortion: \tInverse Brown Conrady
  Coeffs:     \t-0.05  \t0.06  \t-0.001  \t7e-05  \t-0.02
  FOV (deg):  \t69.73 x 42.95

 Intrinsic of "Infrared 1" / 640x480 / {Y8}
  Width:      \t640
  Height:     \t480
  PPX:        \t321
  PPY:        \t235.8
  Fx:         \t382.9
  Fy:         \t382.9
  Distortion: \tBrown Conrady
  Coeffs:     \t0  \t0  \t0  \t0  \t0

Extrinsic Parameters:
Extrinsic from "Depth"\t  To\t  "Depth" :
 Rotation Matrix:
   1                0                0
   0                1                0
   0                0                1

 Translation Vector: 0  0  0

Extrinsic from "Depth"\t  To\t  "Color" :
 Rotation Matrix:
   1                0                0
   0                0               -1
   0                1                0

 Translation Vector: 0.05  0  0.01

Extrinsic from "Color"\t  To\t  "Depth" :
 Rotation Matrix:
   1                0                0
   0                0                1
   0               -1                0

 Translation Vector: -0.05  -0.01  0
"""
PRINTED = "[ 640x480  p[319.5 239.5]  f[525 525]  Brown Conrady [0 0 0 0 0] ]"
# pyrealsense2 prints rotations column by column.
PRINTED_MOTION = "rotation: [1, 0, 0, 0, 0, 1, 0, -1, 0]\ntranslation: [0.05, 0, 0.01]"

K4A = """
===== Device 0: 000123 =====
resolution width: 640
resolution height: 576
principal point x: 320.500000
principal point y: 334.250000
focal length x: 504.000000
focal length y: 504.500000
radial distortion coefficients:
k1: 0.500000
k2: 0.100000
k3: 0.010000
k4: 0.800000
k5: 0.200000
k6: 0.030000
center of distortion in Z=1 plane, x: 0.000000
center of distortion in Z=1 plane, y: 0.000000
tangential distortion coefficient x: 0.000100
tangential distortion coefficient y: -0.000200
metric radius: 1.740000
"""
ROS1 = """header:
  seq: 1
height: 480
width: 640
distortion_model: "plumb_bob"
D: [0.1, -0.2, 0.001, 0.002, 0.3]
K: [525.0, 0.0, 319.5, 0.0, 525.0, 239.5, 0.0, 0.0, 1.0]
R: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
"""
ROS2 = "height: 480\nwidth: 640\ndistortion_model: plumb_bob\n" + "".join(
    f"{key}:\n" + "".join(f"- {number}\n" for number in numbers)
    for key, numbers in (
        ("d", (0.1, -0.2, 0.001, 0.002, 0.3)),
        ("k", (525.0, 0, 319.5, 0, 525.0, 239.5, 0, 0, 1)),
    )
)
ROS_FILE = """image_width: 640
image_height: 480
camera_matrix:
  rows: 3
  cols: 3
  data: [525.0, 0.0, 319.5, 0.0, 525.0, 239.5, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0.002, 0.3]
"""
OPENCV = """%YAML:1.0
cameraMatrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 5.25e+02, 0., 3.195e+02, 0.,
       5.25e+02, 2.395e+02, 0., 0., 1. ]
distortionCoefficients: !!opencv-matrix
   rows: 1
   cols: 5
   dt: d
   data: [ 1.0e-01, -2.0e-01,
       1.0e-03, 2.0e-03, 3.0e-01 ]
"""
ORB_SLAM = """%YAML:1.0
Camera.type: "PinHole"
Camera1.fx: 525.0
Camera1.fy: 525.0
Camera1.cx: 319.5
Camera1.cy: 239.5
Camera1.k1: 0.1
Camera1.k2: -0.2
Camera1.p1: 0.001
Camera1.p2: 0.002
Camera1.k3: 0.3
Camera.width: 640
Camera.height: 480
Camera.fps: 30
RGBD.DepthMapFactor: 5000.0
"""
SCANNET = """colorHeight = 968
colorToDepthExtrinsics = 1 0 0 -0.05 0 0 1 -0.01 0 -1 0 0 0 0 0 1
colorWidth = 1296
depthHeight = 480
depthWidth = 640
fx_color = 1170.5
fx_depth = 525
fy_color = 1170.25
fy_depth = 525
mx_color = 647.75
mx_depth = 319.5
my_color = 483.75
my_depth = 239.5
numColorFrames = 784
"""
