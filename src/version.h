/* version.h - the version, from configure. */
#ifndef S3P_VERSION_H
#define S3P_VERSION_H
#include "config.h"
#define S3P_VERSION PACKAGE_VERSION
#endif
